import type { Virtualizer } from "@tanstack/react-virtual";
import { ArrowDownToLine, Pause, Play, ScrollText, Search, Trash2 } from "lucide-react";
import { useDeferredValue, useEffect, useMemo, useRef, useState, type KeyboardEvent, type ReactElement } from "react";
import { clockTime, count } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { Notice } from "../parts/Notice.js";
import { VirtualRows } from "../parts/VirtualRows.js";
import { LEVELS, MOST_LINES, passing, type Level, type Line } from "./lines.js";
import { LineDetails } from "./LineDetails.js";
import { useTail, type Tail } from "./tail.js";

const ROW_PX = 26;
/** Distance from the end, in pixels, that counts as being at the end. */
const END_PX = 2 * ROW_PX;

export function LogsView(): ReactElement {
  const tail = useTail();
  const [level, setLevel] = useState<Level>("info");
  const [text, setText] = useState("");
  const [source, setSource] = useState("");
  const [held, setHeld] = useState<Pick<Tail, "lines" | "count"> | undefined>();
  const [chosen, setChosen] = useState<number | undefined>();

  const all = held?.lines ?? tail.lines;
  const sources = useMemo(() => [...new Set(all.map(({ entry }) => entry.source))].sort(), [all]);
  const wanted = useDeferredValue(text);
  const lines = useMemo(() => passing(all, { level, text: wanted, source }), [all, level, wanted, source]);
  const selected = chosen === undefined ? undefined : lines.find(({ key }) => key === chosen);
  const missed = held ? tail.count - held.count : 0;

  return (
    <div className="view logs">
      <div className="view-head">
        <h1>Logs</h1>
        <div className="row">
          <button type="button" aria-pressed={held !== undefined} onClick={() => setHeld(held ? undefined : tail)}>
            {held ? <Play size={15} aria-hidden /> : <Pause size={15} aria-hidden />}
            {held ? `Go on${missed > 0 ? ` (${missed.toLocaleString("en")} new)` : ""}` : "Pause"}
          </button>
          <button type="button" onClick={() => (tail.clear(), setHeld(undefined), setChosen(undefined))}>
            <Trash2 size={15} aria-hidden /> Clear
          </button>
        </div>
      </div>
      <div className="filters">
        <div className="search grow">
          <Search size={15} aria-hidden />
          <input
            type="search"
            aria-label="Only lines with these words"
            placeholder="Words; -word leaves lines out"
            value={text}
            onChange={(event) => setText(event.target.value)}
          />
        </div>
        <select aria-label="Least level" value={level} onChange={(event) => setLevel(event.target.value as Level)}>
          {LEVELS.map((each) => (
            <option key={each} value={each}>
              {each === "critical" ? each : `${each} and above`}
            </option>
          ))}
        </select>
        <select aria-label="Source" value={source} onChange={(event) => setSource(event.target.value)}>
          <option value="">all sources</option>
          {sources.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </div>
      {tail.refused && (
        <Notice tone="warning">
          Your token does not allow to follow <b>logs</b>: its <code>tidings.channels</code> claim has to name them, or{" "}
          <code>admin</code> has to be true.
        </Notice>
      )}
      <section className="panel tail" aria-label="Log lines">
        {lines.length === 0 ? (
          <Empty icon={ScrollText} title={all.length > 0 ? "No line passes the filters" : "Waiting for lines"}>
            {all.length > 0 ? `${count(all.length, "line")} are kept.` : "Lines of all processes show here as they are written."}
          </Empty>
        ) : (
          <TailRows lines={lines} chosen={selected?.key} onChoose={setChosen} follow={held === undefined} />
        )}
        {selected && <LineDetails line={selected} onClose={() => setChosen(undefined)} />}
      </section>
      <p className="note">
        {count(lines.length, "line")}
        {lines.length < all.length && ` of ${all.length.toLocaleString("en")}`}; the newest {MOST_LINES.toLocaleString("en")} are kept.
      </p>
    </div>
  );
}

function TailRows(props: {
  lines: readonly Line[];
  chosen: number | undefined;
  onChoose: (key: number | undefined) => void;
  follow: boolean;
}): ReactElement {
  const { lines, chosen, onChoose, follow } = props;
  const hold = useRef<Virtualizer<HTMLDivElement, Element>>(null);
  const [atEnd, setAtEnd] = useState(true);

  useEffect(() => {
    if (follow && atEnd) hold.current?.scrollToIndex(lines.length - 1, { align: "end" });
  }, [lines, follow, atEnd]);

  const onKey = (event: KeyboardEvent): void => {
    const at = lines.findIndex(({ key }) => key === chosen);
    const last = lines.length - 1;
    const to: Record<string, number> = {
      ArrowDown: Math.min(last, at + 1),
      ArrowUp: at < 0 ? last : Math.max(0, at - 1),
      Home: 0,
      End: last,
    };
    const wanted = to[event.key];
    if (event.key === "Escape") return onChoose(undefined);
    if (wanted === undefined) return;
    event.preventDefault();
    onChoose(lines[wanted]?.key);
    hold.current?.scrollToIndex(wanted);
    setAtEnd(wanted === last);
  };

  return (
    <>
      <VirtualRows
        count={lines.length}
        rowPx={ROW_PX}
        hold={hold}
        className="tail-rows"
        role="listbox"
        aria-label="Lines, newest last"
        aria-activedescendant={chosen === undefined ? undefined : `line-${chosen}`}
        tabIndex={0}
        inner={{ role: "presentation" }}
        onKeyDown={onKey}
        onScroll={({ currentTarget: box }) => setAtEnd(box.scrollHeight - box.scrollTop - box.clientHeight < END_PX)}
        rowKey={(index) => lines[index]?.key ?? index}
        row={(index, place) => {
          const line = lines[index];
          if (!line) return <div key={index} />;
          const { key, entry, fields } = line;
          return (
            <div
              key={key}
              id={`line-${key}`}
              role="option"
              aria-selected={key === chosen}
              aria-setsize={lines.length}
              aria-posinset={index + 1}
              className={`log ${entry.level}`}
              style={place}
              onClick={() => onChoose(key === chosen ? undefined : key)}
            >
              <time>{clockTime(entry.timestamp)}</time>
              <span className="level">{entry.level}</span>
              <span className="source">{entry.source}</span>
              <span className="event">{entry.event}</span>
              <span className="fields">{fields}</span>
            </div>
          );
        }}
      />
      {!atEnd && (
        <button
          type="button"
          className="small to-end"
          onClick={() => {
            hold.current?.scrollToIndex(lines.length - 1, { align: "end" });
            setAtEnd(true);
          }}
        >
          <ArrowDownToLine size={14} aria-hidden /> To the newest
        </button>
      )}
    </>
  );
}
