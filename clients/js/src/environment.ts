/** Calls back when it is worth looking at the connection at once: a page knows that better than a timer. */
export function watchEnvironment(wake: () => void, offline: () => void): () => void {
  const { window, document } = globalThis as { window?: EventTarget; document?: Document };
  if (!window || !document) return () => undefined;
  const onVisible = (): void => {
    if (!document.hidden) wake();
  };
  window.addEventListener("online", wake);
  window.addEventListener("offline", offline);
  window.addEventListener("pageshow", wake); // back from the back-forward cache, where sockets die
  document.addEventListener("visibilitychange", onVisible);
  return () => {
    window.removeEventListener("online", wake);
    window.removeEventListener("offline", offline);
    window.removeEventListener("pageshow", wake);
    document.removeEventListener("visibilitychange", onVisible);
  };
}
