"""A whole pipeline judged: from pictures and videos, with the boxes it finds itself, beside other models."""
