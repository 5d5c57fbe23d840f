"""`manage.py prepare_demo`: tables, static files, an administrator, a first note."""

import os

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command

from notes.models import Note


class Command(BaseCommand):
    """Makes the site ready to serve; does no harm the second time."""

    help = "Prepares the data of the demo; takes the password from NOTEBOOK_PASSWORD."

    def handle(self, *_args: object, **_options: object) -> None:
        """Runs the steps in the order they need each other."""
        call_command("migrate", verbosity=0, interactive=False)
        call_command("collectstatic", verbosity=0, interactive=False)
        user, _ = get_user_model().objects.get_or_create(
            username="admin", defaults={"is_staff": True, "is_superuser": True}
        )
        user.set_password(os.environ["NOTEBOOK_PASSWORD"])
        user.save()
        if not Note.objects.exists():
            Note.objects.create(title="Welcome", text="This note came with the demo.")
