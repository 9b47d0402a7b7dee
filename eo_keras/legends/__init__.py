"""Legends: classes with colours, and crosswalks from codes to classes."""
