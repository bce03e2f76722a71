import { Moon, Sun, UserRound } from "lucide-react";
import { useState, type ReactElement } from "react";
import { ConnectionState } from "../session/ConnectionState.js";
import { useSession, type Who } from "../session/session.js";
import { YouDialog } from "../session/YouDialog.js";
import { toggleTheme, useTheme } from "./theme.js";

export function Header({ become }: { become: (who: Who) => void }): ReactElement {
  const { who } = useSession();
  const theme = useTheme();
  const [asking, setAsking] = useState(false);
  return (
    <header className="header">
      <a className="brand" href="#/overview" aria-label="Tidings, overview">
        <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
          <rect width="32" height="32" rx="9" className="brand-ground" />
          <path d="M6 16h4l3-7 6 14 3-7h4" className="brand-line" />
        </svg>
        <span>Tidings</span>
      </a>
      <ConnectionState />
      <div className="header-end">
        <button type="button" className="quiet" onClick={() => setAsking(true)} title="Your name and token">
          <UserRound size={17} aria-hidden />
          <span className="wide-only">{who.username || "dashboard"}</span>{" "}
          <span className="hidden">(you: name, status and token)</span>
        </button>
        <button type="button" className="quiet icon" onClick={toggleTheme} title={`Switch to ${theme === "dark" ? "light" : "dark"}`}>
          {theme === "dark" ? <Sun size={17} aria-hidden /> : <Moon size={17} aria-hidden />}
          <span className="hidden">Switch to {theme === "dark" ? "light" : "dark"} colours</span>
        </button>
      </div>
      {asking && <YouDialog become={become} onClose={() => setAsking(false)} />}
    </header>
  );
}
