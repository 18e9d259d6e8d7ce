// Keeps the page's own files, so that the app opens at once and says honestly when the server is away. The network comes
// first; what a widget shows from elsewhere, and everything that is not a file of the page, is left to the browser.
const KEPT = "blynk-pi";
const own = (url) =>
	url.origin === location.origin &&
	(url.pathname === new URL(self.registration.scope).pathname ||
		(url.pathname.includes("/static/") && !/\/static\/(admin|ota)\b/.test(url.pathname)));

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
	const url = new URL(event.request.url);
	if (event.request.method !== "GET" || !own(url)) return;
	event.respondWith(
		(async () => {
			const cache = await caches.open(KEPT);
			try {
				const answer = await fetch(event.request);
				if (answer.ok && answer.type === "basic") cache.put(event.request, answer.clone());
				return answer;
			} catch (problem) {
				const kept = await cache.match(event.request);
				if (kept) return kept;
				throw problem;
			}
		})(),
	);
});

// A click on a notification brings the page to the front.
self.addEventListener("notificationclick", (event) => {
	event.notification.close();
	event.waitUntil(
		self.clients
			.matchAll({ type: "window" })
			.then(([page]) => (page ? page.focus() : self.clients.openWindow(self.registration.scope))),
	);
});
