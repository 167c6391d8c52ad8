"""The sections of the page: each reads what the stages left and says it in tables, charts and pictures."""
