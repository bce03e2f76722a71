import type { RoomMessage } from "@tidings/client";
import { MessagesSquare } from "lucide-react";
import { useLayoutEffect, useRef, type ReactElement } from "react";
import { clockTime, contentText } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { hueOf, initials } from "../presence/people.js";
import { useClient } from "../session/session.js";

const END_PX = 40;

/** Messages, oldest first. Recovered ones are marked. */
export function Messages({ messages, marked }: { messages: readonly RoomMessage[]; marked: ReadonlySet<number> }): ReactElement {
  const client = useClient();
  const box = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    if (atEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [messages]);
  return (
    <div
      ref={box}
      className="messages"
      role="log"
      aria-label="Messages"
      tabIndex={0}
      onScroll={({ currentTarget: at }) => (atEnd.current = at.scrollHeight - at.scrollTop - at.clientHeight < END_PX)}
    >
      {messages.length === 0 ? (
        <Empty icon={MessagesSquare} title="Nothing said yet">
          Say something, or let a server say it: <code>tidings pub</code>, or <code>POST /api/publish</code>.
        </Empty>
      ) : (
        <ol>
          {messages.map((message, index) => {
            const before = messages[index - 1];
            const goesOn = before?.userId === message.userId && before.username === message.username && message.timestamp - before.timestamp < 60_000;
            return (
              <li
                key={message.seq ?? `${message.timestamp} ${index}`}
                className={goesOn ? "message goes-on" : "message"}
                data-seq={message.seq}
              >
                {!goesOn && (
                  <>
                    <span className={`face hue-${hueOf(message.userId)}`} aria-hidden>
                      {initials(message.username)}
                    </span>
                    <p className="said-by">
                      <b>{message.username}</b>
                      {message.userId === client.userId && <span className="note"> (you)</span>}
                      <time className="note" dateTime={new Date(message.timestamp).toISOString()}>
                        {clockTime(message.timestamp)}
                      </time>
                    </p>
                  </>
                )}
                <p className="said">
                  {contentText(message.content)}
                  {message.seq !== undefined && marked.has(message.seq) && <span className="tag good">recovered</span>}
                </p>
                {message.seq !== undefined && <span className="place">#{message.seq}</span>}
              </li>
            );
          })}
        </ol>
      )}
    </div>
  );
}
