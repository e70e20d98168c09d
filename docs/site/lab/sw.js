/** Keeps the lab on this device: what was loaded once is there without a network. tools/web_lab.py fills in the two names. */

const CACHE = "lab-VERSION";
const SHELL = ["FILES"];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)));
});

self.addEventListener("activate", (event) => {
  const clear = async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith("lab-") && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(clear());
});

self.addEventListener("fetch", (event) => {
  const answer = async () => {
    const cache = await caches.open(CACHE);
    const stored = await cache.match(event.request, { ignoreSearch: true });
    if (stored) return stored;
    const fresh = await fetch(event.request);
    if (fresh.ok) event.waitUntil(cache.put(event.request, fresh.clone()));
    return fresh;
  };
  if (event.request.method === "GET") event.respondWith(answer());
});
