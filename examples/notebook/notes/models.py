"""The one table of the notebook."""

from django.db import models


class Note(models.Model):
    """A text, and a file if its author has one."""

    title = models.CharField(max_length=100)
    text = models.TextField(blank=True)
    attachment = models.FileField(upload_to="attachments/", blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.title
