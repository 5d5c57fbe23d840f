"""The pages of the notebook outside the admin."""

import os
import sys

from django.contrib.auth.decorators import login_required
from django.forms import ModelForm
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render

from .models import Note


class NoteForm(ModelForm):
    """What one fills in for a new note."""

    class Meta:
        model = Note
        fields = ["title", "text", "attachment"]


def facts(request: HttpRequest) -> dict[str, object]:
    """Says where this request runs."""
    group = request.META.get("mod_wsgi.process_group", "")
    return {
        "mode": f"by daemon process group '{group}'" if group else "embedded in httpd",
        "process_group": group,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "python": sys.version.split()[0],
        "prefix": sys.prefix,
    }


def home(request: HttpRequest) -> HttpResponse:
    """Lists the notes."""
    context = {"notes": Note.objects.all()[:50], "facts": facts(request)}
    return render(request, "notes/home.html", context)


def where(request: HttpRequest) -> HttpResponse:
    """Tells a script what `facts` tells a reader."""
    return JsonResponse(facts(request))


@login_required
def new_note(request: HttpRequest) -> HttpResponse:
    """Shows the form, and keeps what was filled in."""
    form = NoteForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("home")
    return render(request, "notes/new.html", {"form": form})


@login_required
def attachment(request: HttpRequest, pk: int) -> FileResponse:
    """Gives out a file; Django hands it to `wsgi.file_wrapper`."""
    note = get_object_or_404(Note, pk=pk)
    if not note.attachment:
        raise Http404("this note has no attachment")
    return FileResponse(note.attachment.open("rb"), as_attachment=True)


def attachment_by_name(request: HttpRequest, name: str) -> FileResponse:
    """The same under the address the admin links to."""
    return attachment(request, get_object_or_404(Note, attachment=name).pk)
