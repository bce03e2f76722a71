import type { Status } from "@tidings/client";
import { useState, type ReactElement } from "react";
import { Dialog } from "../parts/Dialog.js";
import { explain, useAction } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { rememberedStatus, rememberStatus, useSession, type Who } from "./session.js";

const STATUSES: readonly Status[] = ["online", "away", "busy"];

/** This page's own name, status and token. */
export function YouDialog({ become, onClose }: { become: (who: Who) => void; onClose: () => void }): ReactElement {
  const { client, who } = useSession();
  const [username, setUsername] = useState(who.username);
  const [status, setStatus] = useState<Status>(rememberedStatus);
  const saving = useAction(async () => {
    rememberStatus(status);
    if (username.trim() !== who.username) become({ ...who, username: username.trim() });
    else await client.setStatus(status);
    onClose();
  });
  return (
    <Dialog title="You" onClose={onClose} onSubmit={saving.run}>
      <label>
        Name that others see
        <input value={username} onChange={(event) => setUsername(event.target.value)} maxLength={40} placeholder="dashboard" />
      </label>
      <label>
        Status
        <select value={status} onChange={(event) => setStatus(event.target.value as Status)}>
          {STATUSES.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </label>
      <p className="note">
        {client.userId ? (
          <>
            You are <code>{client.userId}</code>.{" "}
          </>
        ) : null}
        {who.token ? "Signed in with a token; its name counts." : "This server lets anyone in; a name proves nothing."}
      </p>
      {saving.error && <Notice tone="critical">{explain(saving.error)}</Notice>}
      <div className="row end">
        {who.token && (
          <button type="button" onClick={() => (become({ ...who, token: "" }), onClose())}>
            Sign out
          </button>
        )}
        <button type="submit" className="primary" disabled={saving.busy}>
          Save
        </button>
      </div>
    </Dialog>
  );
}
