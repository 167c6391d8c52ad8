"""Who is who: how like a found person is to a known one, who comes back, and the assignment of all to all."""
