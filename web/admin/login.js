// Logs in: the password leaves the browser only as its hash.
import { hashPassword } from "./password.js";

const base = document.body.dataset.base;
const form = document.getElementById("login");
const message = document.getElementById("message");
const button = form.querySelector("button");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  message.hidden = true;
  const email = form.email.value.trim().toLowerCase();
  const body = new URLSearchParams({ email, password: hashPassword(form.password.value, email) });
  try {
    await fetch(`${base}/login`, { method: "POST", body, redirect: "manual" });
    const state = await fetch(`${base}/api/state`);
    if (state.ok) {
      location.replace(base);
      return;
    }
    message.textContent = "Wrong e-mail or password. After several wrong passwords the login pauses for a minute.";
  } catch {
    message.textContent = "The server does not answer.";
  }
  message.hidden = false;
  button.disabled = false;
  form.password.select();
});

button.disabled = false;
