"""The leaderboard as pages: static, one JSON file, no server, no address but its own."""
