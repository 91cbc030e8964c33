"""Models in the browser, and for programs: a page and an API (`viceversa serve`), and a page without a server."""
