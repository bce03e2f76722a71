import { X } from "lucide-react";
import { useId, useLayoutEffect, useRef, type ReactElement, type ReactNode } from "react";

/** The browser's modal dialog, which traps the focus and restores it. */
export function Dialog({
  title,
  onClose,
  onSubmit,
  children,
}: {
  title: string;
  onClose: () => void;
  onSubmit: () => void;
  children: ReactNode;
}): ReactElement {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Closed before it is removed from the page: a removed dialog cannot restore the focus.
  useLayoutEffect(() => {
    const shown = dialog.current;
    if (!shown?.open) shown?.showModal();
    return () => shown?.close();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onCancel={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onSubmit();
        }}
      >
        <div className="row between">
          <h2 id={id}>{title}</h2>
          <button type="button" className="quiet icon" onClick={onClose}>
            <X size={17} aria-hidden />
            <span className="hidden">Close</span>
          </button>
        </div>
        {children}
      </form>
    </dialog>
  );
}
