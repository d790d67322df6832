"""The documentation: pages in Markdown, and what makes tables, copies and the API reference of the code."""
