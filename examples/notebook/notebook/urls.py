"""What the notebook answers to."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import path
from notes import views

urlpatterns = [
    path("", views.home, name="home"),
    path("where", views.where, name="where"),
    path("notes/new", views.new_note, name="new-note"),
    path("notes/<int:pk>/attachment", views.attachment, name="attachment"),
    path("media/<path:name>", views.attachment_by_name),
    path("login", auth_views.LoginView.as_view(), name="login"),
    path("logout", auth_views.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
]
