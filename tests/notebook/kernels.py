"""A real kernel, and what it sent to the page."""

import time


class Page:
    """Plays the front end: runs cells, keeps every message, and the outputs by display id."""

    def __init__(self, client):
        self._client = client
        self.messages = []
        self.displays = {}

    def send(self, code, cell_id=None):
        """Start a cell. Its message's id."""
        content = {"code": code, "silent": False, "store_history": True, "stop_on_error": True}
        message = self._client.session.msg("execute_request", content)
        message["metadata"] = {} if cell_id is None else {"cellId": cell_id}
        self._client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def run(self, code, cell_id=None, timeout=60):
        """Run a cell to its end. What it printed."""
        own = self.send(code, cell_id)
        printed = []

        def idle(message):
            if message["parent_header"].get("msg_id") != own:
                return False
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
            return message["content"].get("execution_state") == "idle"

        self.until(idle, timeout)
        return "".join(printed)

    def until(self, wanted, timeout=60):
        """Take messages until one is wanted."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
            self._take(message)
            if wanted(message):
                return message

    def until_shown(self, text, timeout=60):
        """Take messages until the first card shows a text."""
        if text not in self.cards[0]["text/html"]:
            self.until(lambda message: text in self.cards[0]["text/html"], timeout)

    def _take(self, message):
        self.messages.append(message)
        if message["msg_type"] in ("display_data", "update_display_data"):
            display = message["content"].get("transient", {}).get("display_id")
            if display is not None:
                self.displays.setdefault(display, []).append(message)

    @property
    def cards(self):
        """The last face of each card, in the order in which they were first shown."""
        return [messages[-1]["content"]["data"] for messages in self.displays.values()]
