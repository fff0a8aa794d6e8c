"""Figures, counted where they arise and added up when somebody asks."""
