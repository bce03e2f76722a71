/** Calls back on events of the page after which the connection should be checked at once. */
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
