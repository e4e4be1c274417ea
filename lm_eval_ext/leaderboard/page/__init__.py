"""The leaderboard as one HTML file: tables, charts and every question, without any network."""

from lm_eval_ext.leaderboard.page.build import build_page
from lm_eval_ext.leaderboard.page.size_limits import PageLimits

__all__ = ["PageLimits", "build_page"]
