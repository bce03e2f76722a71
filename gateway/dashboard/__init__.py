"""The page at `/`: the dashboard, as `make dashboard` builds it from `dashboard/`.

- `dist/`           the built files; not under version control, but in every wheel and image
- `unbuilt.html`    shown where the dashboard was not built
- `serving`         how a browser gets them
"""

from gateway.dashboard.serving import page_routes

__all__ = ["page_routes"]
