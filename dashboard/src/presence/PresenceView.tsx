import type { User } from "@tidings/client";
import { usePresence } from "@tidings/client/react";
import { Search, Users } from "lucide-react";
import { memo, useCallback, useDeferredValue, useMemo, useState, type ReactElement } from "react";
import { linkTo } from "../app/routes.js";
import { ago, count } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { useNow, useQuery, useValue } from "../parts/hooks.js";
import { VirtualRows } from "../parts/VirtualRows.js";
import { useClient } from "../session/session.js";
import { found, hueOf, initials, memberships, MOST_ROOMS, type Order } from "./people.js";

const ROOMS_MS = 10_000;
const ROW_PX = 48;
const NO_ROOMS: ReadonlyMap<string, readonly string[]> = new Map();

export function PresenceView(): ReactElement {
  const client = useClient();
  const { users, synced } = usePresence();
  const told = useValue(client.presence.count);
  const [search, setSearch] = useState("");
  const [order, setOrder] = useState<Order>("name");
  const now = useNow();

  const asking = useCallback(
    async (signal: AbortSignal) => {
      const rooms = await client.request("GET /api/rooms", { query: { limit: MOST_ROOMS + 1 }, signal });
      return memberships(rooms, (room) => client.request("GET /api/presence", { query: { room, limit: 1000 }, signal }));
    },
    [client],
  );
  const inRooms = useQuery(asking, ROOMS_MS).data;
  const rooms = inRooms?.rooms ?? NO_ROOMS;

  // The key stroke is shown first; sorting a thousand names follows.
  const wanted = useDeferredValue(search);
  const shown = useMemo(() => found(users, wanted, order, rooms), [users, wanted, order, rooms]);
  // The server's count is that of its snapshot. It is updated only where there are too many users to list.
  const total = users.length || (told ?? 0);

  return (
    <div className="view presence">
      <div className="view-head">
        <h1>Presence</h1>
        <div className="row">
          <div className="search">
            <Search size={15} aria-hidden />
            <input
              type="search"
              aria-label="Search by name, id, status or room"
              placeholder="Name, status or room"
              value={search}
              onChange={(event) => setSearch(event.target.value)}
            />
          </div>
          <div className="segments" role="group" aria-label="Order">
            <button type="button" aria-pressed={order === "name"} onClick={() => setOrder("name")}>
              By name
            </button>
            <button type="button" aria-pressed={order === "seen"} onClick={() => setOrder("seen")}>
              Last seen
            </button>
          </div>
        </div>
      </div>
      <p className="note row" role="status">
        <b className="figures">{count(total, "user")} online</b>
        {wanted && <span>{count(shown.length, "match").replace("matchs", "matches")}</span>}
        {!synced && <span className="tag warning">as of before the connection was lost</span>}
        {inRooms?.partial && <span>rooms: of the {MOST_ROOMS} largest</span>}
      </p>
      <section className="panel people" aria-label="Who is online">
        {shown.length === 0 ? (
          <Empty icon={Users} title={total > 0 && users.length === 0 ? "Too many to list" : wanted ? "Nobody matches" : "Nobody is online"}>
            {total > 0 && users.length === 0
              ? "Beyond TIDINGS_PRESENCE_ONLINE_LIMIT users the server tells how many there are, and not who."
              : wanted
                ? "The search looks at names, ids, statuses and rooms."
                : "Who opens a connection shows here at once."}
          </Empty>
        ) : (
          <VirtualRows
            count={shown.length}
            rowPx={ROW_PX}
            role="table"
            aria-label="Users"
            aria-rowcount={shown.length}
            tabIndex={0}
            inner={{ role: "rowgroup" }}
            rowKey={(index) => shown[index]?.userId ?? index}
            row={(index, place) => {
              const user = shown[index];
              return user ? (
                <Person
                  key={user.userId}
                  index={index}
                  user={user}
                  rooms={rooms.get(user.userId)}
                  seen={ago(user.lastSeen, now)}
                  me={user.userId === client.userId}
                  transform={place.transform}
                  height={place.height}
                />
              ) : (
                <div key={index} />
              );
            }}
          />
        )}
      </section>
    </div>
  );
}

/** Rendered again only when its content changes: of a thousand users most do not change. */
const Person = memo(function Person(props: {
  index: number;
  user: User;
  rooms: readonly string[] | undefined;
  seen: string;
  me: boolean;
  transform: string;
  height: string;
}): ReactElement {
  const { user, rooms, seen, me, index, transform, height } = props;
  return (
    <div className="person" role="row" aria-rowindex={index + 1} style={{ transform, height }}>
      <span className={`face hue-${hueOf(user.userId)}`} role="presentation" aria-hidden>
        {initials(user.username)}
      </span>
      <span role="cell" className="person-name">
        <b>{user.username}</b> {me && <span className="tag accent">you</span>}
        <small className="note">{user.userId}</small>
      </span>
      <span role="cell" className={`status ${user.status}`}>
        {user.status}
      </span>
      <span role="cell" className="person-rooms">
        {rooms?.slice(0, 4).map((room) => (
          <a key={room} className="tag" href={linkTo("rooms", room)}>
            {room}
          </a>
        ))}
        {rooms && rooms.length > 4 && <span className="note">+{rooms.length - 4}</span>}
      </span>
      <span role="cell" className="note person-seen">
        {seen}
      </span>
    </div>
  );
});
