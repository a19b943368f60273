"""oslo.messaging's own readers and writers, imported once without the warnings of that import."""

import warnings

with warnings.catch_warnings():
    # oslo.service, which oslo.messaging imports, takes eventlet when nobody chose; nothing here runs on it.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from oslo_messaging import NotificationFilter as OsloNotificationFilter, RemoteError
    from oslo_messaging._drivers import amqp, common as drivers
    from oslo_messaging._utils import version_is_compatible

__all__ = ["OsloNotificationFilter", "RemoteError", "amqp", "drivers", "version_is_compatible"]
