"""oslo.messaging's own readers and writers, imported once without the warnings of that import."""

import warnings

with warnings.catch_warnings():
    # oslo.service, which oslo.messaging imports, takes eventlet when nobody chose; nothing here runs on it.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from oslo_messaging import NotificationFilter as OsloNotificationFilter, RemoteError, opts
    from oslo_messaging._drivers import amqp, common as drivers
    from oslo_messaging._metrics.client import oslo_messaging_metrics
    from oslo_messaging._tracing.client import oslo_messaging_tracing
    from oslo_messaging._utils import version_is_compatible
    from oslo_messaging.notify._impl_routing import router_config

_LISTED = {group or "DEFAULT": options for group, options in opts.list_opts()}
OPTIONS = {
    (section, opt.name): opt
    for section, options in {
        "DEFAULT": _LISTED["DEFAULT"],
        "oslo_messaging_rabbit": _LISTED["oslo_messaging_rabbit"],
        "oslo_messaging_notifications": [*_LISTED["oslo_messaging_notifications"], router_config],
        "oslo_messaging_metrics": oslo_messaging_metrics,
        "oslo_messaging_tracing": oslo_messaging_tracing,
    }.items()
    for opt in options
}
"""(section, name) -> the option, of every section that has to do with RabbitMQ; there is one for Kafka too."""

__all__ = ["OPTIONS", "OsloNotificationFilter", "RemoteError", "amqp", "drivers", "version_is_compatible"]
