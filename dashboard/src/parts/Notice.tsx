import { Info, OctagonAlert, TriangleAlert } from "lucide-react";
import type { ReactElement, ReactNode } from "react";

const ICONS = { info: Info, warning: TriangleAlert, critical: OctagonAlert };

export function Notice({ tone, children }: { tone: keyof typeof ICONS; children: ReactNode }): ReactElement {
  const Icon = ICONS[tone];
  return (
    <div className={`notice ${tone}`} role={tone === "critical" ? "alert" : undefined}>
      <Icon size={17} aria-hidden />
      <div>{children}</div>
    </div>
  );
}
