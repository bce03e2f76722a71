import { useVirtualizer, type Virtualizer } from "@tanstack/react-virtual";
import { useRef, type HTMLAttributes, type ReactElement, type RefObject } from "react";

export interface VirtualRowsProps extends Omit<HTMLAttributes<HTMLDivElement>, "children"> {
  count: number;
  rowPx: number;
  /** Renders one row, positioned by `style`. */
  row: (index: number, place: { transform: string; height: string }) => ReactElement;
  rowKey: (index: number) => string | number;
  /** Receives the scrolling element, to scroll it from outside. */
  hold?: RefObject<Virtualizer<HTMLDivElement, Element> | null>;
  /** The ARIA role of the rows' container. */
  inner?: HTMLAttributes<HTMLDivElement>;
}

/** Rows of one height, of which only the visible ones are rendered. */
export function VirtualRows({ count, rowPx, row, rowKey, hold, inner, className = "", ...rest }: VirtualRowsProps): ReactElement {
  const box = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count,
    getScrollElement: () => box.current,
    estimateSize: () => rowPx,
    getItemKey: rowKey,
    overscan: 12,
  });
  if (hold) hold.current = rows;
  return (
    <div {...rest} ref={box} className={`rows ${className}`}>
      <div {...inner} className="rows-all" style={{ height: rows.getTotalSize() }}>
        {rows.getVirtualItems().map(({ index, start }) => row(index, { transform: `translateY(${start}px)`, height: `${rowPx}px` }))}
      </div>
    </div>
  );
}
