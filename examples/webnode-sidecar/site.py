"""The ticket page of examples/webnode, in Python against `rowtide node`.

    site.py --port 8090 --node 127.0.0.1:6390      (or --node /run/rowtide/node.sock)

It needs Python 3.9 and redis-py (Debian: python3-redis).
"""
import argparse
import html
import json
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

CLASSES = ("A", "B")  # of seats; every event has both


def connect(node):
    if node.startswith("/"):
        return redis.Redis(unix_socket_path=node)
    host, port = node.rsplit(":", 1)
    return redis.Redis(host=host, port=int(port))


def time(text):
    """RFC 3339 in UTC; what is below a second does not matter here."""
    return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)


def ticket_page(node, event_id):
    """The page of an event, or None. One round trip, all of it from local memory."""
    keys = [f"event:{event_id}"] + [f"stock_view:{event_id}:{c}:0" for c in CLASSES]
    event, *stock = [json.loads(v) if v is not None else None for v in node.mget(keys)]
    now = datetime.now(timezone.utc)
    if event is None or now < time(event["visible_at"]):
        return None
    venue = node.get(f"venue:{event['venue_id']}")
    # Nothing is written when the sale opens: the clock is read here.
    sale = "On sale" if now >= time(event["sellable_at"]) else "On sale from " + event["sellable_at"]
    lines = [f"<!doctype html><title>{html.escape(event['title'])}</title><h1>{html.escape(event['title'])}</h1>"]
    if venue is not None:
        v = json.loads(venue)
        lines.append(f"<p>{html.escape(v['name'])}, {html.escape(v['city'])}</p>")
    lines.append(f"<p>{sale}</p>")
    for c, s in zip(CLASSES, stock):
        if s is not None:
            lines.append(f"<li>{c}: {s['avail']} left</li>" if s["avail"] else f"<li>{c}: sold out</li>")
    return "\n".join(lines)


def handler(node):
    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            head, _, event_id = self.path.partition("/events/")
            if head or not event_id.isascii() or not event_id.isdigit():
                return self.answer(404, "no such page")
            try:
                page = ticket_page(node, event_id)
            except redis.RedisError as e:
                self.log_error("rowtide node: %s", e)
                return self.answer(503, "try again in a moment")
            return self.answer(404, "no such event") if page is None else self.answer(200, page)

        def answer(self, code, text):
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_):
            pass

    return Site


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--port", type=int, default=8090)
    flags.add_argument("--node", default="127.0.0.1:6390", help="host:port or socket of rowtide node")
    given = flags.parse_args()
    ThreadingHTTPServer(("127.0.0.1", given.port), handler(connect(given.node))).serve_forever()
