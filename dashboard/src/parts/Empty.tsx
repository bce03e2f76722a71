import type { LucideIcon } from "lucide-react";
import type { ReactElement, ReactNode } from "react";

/** Placeholder for an empty list: says that it is empty, and what would fill it. */
export function Empty(props: { icon: LucideIcon; title: string; compact?: boolean; children?: ReactNode }): ReactElement {
  const { icon: Icon, title, compact = false, children } = props;
  return (
    <div className={compact ? "empty compact" : "empty"}>
      <Icon size={28} strokeWidth={1.4} aria-hidden />
      <p className="empty-title">{title}</p>
      {children && <p className="note">{children}</p>}
    </div>
  );
}
