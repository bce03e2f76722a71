import { usePresence, useRoom } from "@tidings/client/react";
import { LogOut, Send } from "lucide-react";
import { useState, type ReactElement } from "react";
import { linkTo } from "../app/routes.js";
import { count } from "../format.js";
import { explain, useAction, useValue } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { hueOf, initials } from "../presence/people.js";
import { useClient } from "../session/session.js";
import { CutDialog } from "./CutDialog.js";
import { Messages } from "./Messages.js";
import { ResumeReport } from "./ResumeReport.js";
import { useResume } from "./useResume.js";

const STATES = { left: "left", joining: "joining …", joined: "joined", refused: "refused", removed: "removed" };
const MOST_SHOWN = 300;
const MOST_MEMBERS = 100;

export function RoomPanel({ name }: { name: string }): ReactElement {
  const { room, state, messages, publish } = useRoom(name, { history: true, limit: MOST_SHOWN });
  const watch = useResume(room);
  const [cutting, setCutting] = useState(false);
  const ended = state === "refused" || state === "removed";
  return (
    <section className="panel room" aria-label={`Room ${name}`}>
      <div className="panel-head">
        <h2>{name}</h2>
        <div className="row">
          <span className={`tag ${state === "joined" ? "good" : ended ? "critical" : "warning"}`}>{STATES[state]}</span>
          <button type="button" onClick={() => setCutting(true)} disabled={state !== "joined"}>
            Cut the connection
          </button>
          <a className="button quiet" href={linkTo("rooms")}>
            <LogOut size={15} aria-hidden /> Leave
          </a>
        </div>
      </div>
      {state === "refused" && <Notice tone="critical">There is no such room, or it is not for you.</Notice>}
      {state === "removed" && <Notice tone="critical">The server removed you from this room.</Notice>}
      <ResumeReport watch={watch} />
      <div className="room-body">
        <div className="room-talk">
          <Messages messages={messages} marked={watch.marked} />
          <Composer publish={publish} name={name} />
        </div>
        <Members name={name} />
      </div>
      {cutting && <CutDialog room={name} onClose={() => setCutting(false)} />}
    </section>
  );
}

function Composer({ publish, name }: { publish: (content: unknown) => Promise<unknown>; name: string }): ReactElement {
  const client = useClient();
  const { state } = useValue(client.status);
  const [text, setText] = useState("");
  const sending = useAction((said: string) => publish(said));
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        if (!text.trim()) return;
        sending.run(text.trim());
        setText("");
      }}
    >
      {sending.error && <Notice tone="critical">Not sent: {explain(sending.error)}</Notice>}
      <div className="row">
        <input
          className="grow"
          aria-label={`Say something in ${name}`}
          placeholder={state === "connected" ? "Say something" : "Goes out when the connection is back"}
          value={text}
          onChange={(event) => setText(event.target.value)}
          maxLength={4000}
        />
        <button type="submit" className="primary" disabled={!text.trim()}>
          <Send size={15} aria-hidden /> Send
        </button>
      </div>
    </form>
  );
}

function Members({ name }: { name: string }): ReactElement {
  const client = useClient();
  const { users } = usePresence(name);
  const told = useValue(client.room(name).presence.count);
  const total = users.length || (told ?? 0); // only a count where there are too many users to list
  return (
    <aside className="members" aria-label="Members">
      <h3>{count(total, "member")}</h3>
      <ul>
        {users.slice(0, MOST_MEMBERS).map((user) => (
          <li key={user.userId}>
            <span className={`face small hue-${hueOf(user.userId)}`} aria-hidden>
              {initials(user.username)}
            </span>
            <span className="grow">{user.username}</span>
            {user.userId === client.userId && <span className="tag accent">you</span>}
            {user.status !== "online" && <span className={`status ${user.status}`}>{user.status}</span>}
          </li>
        ))}
      </ul>
      {total > MOST_MEMBERS && <p className="note">and {total - Math.min(users.length, MOST_MEMBERS)} more</p>}
    </aside>
  );
}
