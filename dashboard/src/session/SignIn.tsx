import { KeyRound } from "lucide-react";
import { useState, type ReactElement } from "react";
import { Notice } from "../parts/Notice.js";
import { useSession, type Who } from "./session.js";

/** Asks for a token where the server requires one. */
export function SignIn({ reason, become }: { reason: string | undefined; become: (who: Who) => void }): ReactElement {
  const { who } = useSession();
  const [token, setToken] = useState("");
  return (
    <form
      className="panel sign-in"
      onSubmit={(event) => {
        event.preventDefault();
        become({ ...who, token: token.trim() });
      }}
    >
      <h1>
        <KeyRound size={20} aria-hidden /> This server asks for a token
      </h1>
      {reason && <Notice tone="critical">The token was refused: {reason}.</Notice>}
      <p>
        Paste a JSON Web Token. It stays in this tab, and buys a one-time ticket for each connection: it never stands in an
        address. To see everything it needs the channels <code>metrics</code>, <code>alerts</code>, <code>presence</code> and{" "}
        <code>logs</code>, or <code>admin</code>. For development, <code>tidings token</code> makes one.
      </p>
      <label>
        Token
        <textarea
          value={token}
          onChange={(event) => setToken(event.target.value)}
          rows={4}
          required
          spellCheck={false}
          autoComplete="off"
          autoFocus
        />
      </label>
      <button type="submit" className="primary">
        Connect
      </button>
    </form>
  );
}
