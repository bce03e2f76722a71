"""The page at `/`: a plain one, without build step or dependency, that shows the system at work.

- `index.html`, `app.js`, `style.css`   what the browser gets
- `serving`                             how it gets them
"""

from gateway.page.serving import page_routes

__all__ = ["page_routes"]
