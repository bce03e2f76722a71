import type { RoomSummary } from "@tidings/client";
import { MessagesSquare } from "lucide-react";
import { useCallback, useState, type ReactElement } from "react";
import { linkTo } from "../app/routes.js";
import { count } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { explain, useQuery } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useClient } from "../session/session.js";
import { RoomPanel } from "./RoomPanel.js";

const EVERY_MS = 2500;

export function RoomsView({ subject }: { subject: string | undefined }): ReactElement {
  const client = useClient();
  const { data, error } = useQuery(
    useCallback((signal) => client.request("GET /api/rooms", { query: { limit: 200 }, signal }), [client]),
    EVERY_MS,
  );
  return (
    <div className="view rooms">
      <div className="view-head">
        <h1>Rooms</h1>
      </div>
      {error && <Notice tone="warning">{explain(error)}</Notice>}
      <div className={subject === undefined ? "split" : "split chosen"}>
        <RoomList rooms={data ?? []} current={subject} />
        {subject === undefined ? (
          <section className="panel">
            <Empty icon={MessagesSquare} title="No room chosen">
              Join one to talk, to read what it keeps, and to see how it resumes after a lost connection.
            </Empty>
          </section>
        ) : (
          <RoomPanel key={subject} name={subject} />
        )}
      </div>
    </div>
  );
}

function RoomList({ rooms, current }: { rooms: readonly RoomSummary[]; current: string | undefined }): ReactElement {
  const [name, setName] = useState("");
  return (
    <section className="panel room-list" aria-label="Rooms with members">
      <form
        className="panel-head"
        onSubmit={(event) => {
          event.preventDefault();
          if (name.trim()) location.hash = linkTo("rooms", name.trim());
          setName("");
        }}
      >
        <input
          className="grow"
          aria-label="Name of a room"
          placeholder="lobby"
          value={name}
          onChange={(event) => setName(event.target.value)}
          maxLength={128}
          required
        />
        <button type="submit">Join</button>
      </form>
      {rooms.length === 0 ? (
        <p className="note pad">No room has members now. Any name makes one.</p>
      ) : (
        <ul>
          {rooms.map(({ room, users, connections }) => (
            <li key={room}>
              <a href={linkTo("rooms", room)} aria-current={room === current ? "page" : undefined}>
                <b>{room}</b>
                <span className="tag" title={`${count(users, "user")} over ${count(connections, "connection")}`}>
                  {users.toLocaleString("en")}
                  <span className="hidden"> {users === 1 ? "user" : "users"}</span>
                </span>
              </a>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
