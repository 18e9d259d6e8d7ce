// Sets a new password: only its hash leaves the browser.
import { hashPassword } from "../admin/password.js";

const form = document.getElementById("reset");
const message = document.getElementById("message");
const button = form.querySelector("button");

function say(text, good) {
  message.textContent = text;
  message.className = good ? "" : "bad";
  message.hidden = false;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (form.first.value !== form.second.value) {
    say("The two passwords differ.", false);
    return;
  }
  button.disabled = true;
  const body = new URLSearchParams({ password: hashPassword(form.first.value, form.email.value), token: form.token.value });
  try {
    const answer = await fetch(form.action, { method: "POST", body });
    say(await answer.text() || "This account does not exist any more.", answer.ok);
    if (answer.ok) {
      form.reset();
      form.querySelectorAll("label").forEach((label) => label.remove());
      button.remove();
      return;
    }
  } catch {
    say("The server does not answer.", false);
  }
  button.disabled = false;
});

button.disabled = false;
