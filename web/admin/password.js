// What an app sends for a password: base64(SHA-256(password, SHA-256(e-mail in lower case))). Works on plain http too,
// where browsers keep crypto.subtle away.
import { sha256 } from "../vendor/sha256.js";

/** hashPassword("secret", "me@example.com") -> 44 characters */
export function hashPassword(password, email) {
  const encoder = new TextEncoder();
  const salt = sha256(encoder.encode(email.toLowerCase()));
  const text = encoder.encode(password);
  const joined = new Uint8Array(text.length + salt.length);
  joined.set(text);
  joined.set(salt, text.length);
  return btoa(String.fromCharCode(...sha256(joined)));
}
