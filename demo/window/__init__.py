"""The demo's window: PySide6 and pyqtgraph. Talks to ``demo.session.Session`` only through its methods and events."""
