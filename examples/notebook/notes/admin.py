"""How notes look in the admin."""

from django.contrib import admin

from .models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """A list one can search."""

    list_display = ["title", "attachment", "created"]
    search_fields = ["title", "text"]
