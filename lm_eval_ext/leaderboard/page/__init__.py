"""The leaderboard as one HTML file: tables, charts and every question, without any network."""
