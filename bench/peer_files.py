"""Configuration files of the peers: pass everything on at once, keep connections, limit nothing that is measured."""

import json


def nginx(port: int, upstream_port: int) -> str:
    """Return nginx's configuration: one process, unbuffered."""
    paths = "".join(f"    {kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""daemon off;
master_process off;
pid nginx.pid;
worker_rlimit_nofile 20000;
events {{
    worker_connections 20000;
}}
http {{
    access_log off;
{paths}    keepalive_requests 1000000000;
    upstream origin {{
        server 127.0.0.1:{upstream_port};
        keepalive 2000;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def nchan(port: int, module: str) -> str:
    """Return the configuration of nginx with its hub: one process, a history of some thousand messages."""
    paths = "".join(f"    {kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""load_module {module};
daemon off;
master_process off;
pid nginx.pid;
worker_rlimit_nofile 20000;
events {{
    worker_connections 20000;
    multi_accept on;
}}
http {{
    access_log off;
{paths}    keepalive_requests 1000000000;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location = /sub {{
            nchan_subscriber eventsource;
            nchan_channel_id events;
            nchan_subscriber_first_message newest;
        }}
        location = /pub {{
            nchan_publisher;
            nchan_channel_id events;
            nchan_message_buffer_length 10000;
            nchan_message_timeout 1h;
        }}
    }}
}}
"""


def haproxy(port: int, upstream_port: int) -> str:
    """Return HAProxy's configuration: one thread."""
    return f"""global
    nbthread 1
    maxconn 9000
defaults
    mode http
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen events
    bind 127.0.0.1:{port} backlog 16384
    server origin 127.0.0.1:{upstream_port}
"""


def envoy(port: int, upstream_port: int) -> str:
    """Return Envoy's configuration: one listener, one cluster, without timeouts and circuit breakers."""

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    package = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{package}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "events",
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0s"}}]}
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{package}.http.router.v3.Router"}}],
    }
    listener = {
        "address": address(port),
        "tcp_backlog_size": 16384,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    most = 100_000
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [{"max_connections": most, "max_pending_requests": most, "max_requests": most}]},
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream_port)}}]}]},
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def caddy(port: int, upstream_port: int) -> str:
    """Return Caddy's configuration: flush at once."""
    return f"""{{
    admin off
    auto_https off
    persist_config off
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{upstream_port} {{
        flush_interval -1
        transport http {{
            keepalive_idle_conns 2000
            keepalive_idle_conns_per_host 2000
        }}
    }}
}}
"""


def traefik(port: int, routes: str) -> str:
    """Return Traefik's static configuration as JSON, which is YAML; `routes` is the path of the dynamic one."""
    return json.dumps(
        {
            "entryPoints": {"web": {"address": f"127.0.0.1:{port}"}},
            "providers": {"file": {"filename": routes}},
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "ERROR"},
            "serversTransport": {"maxIdleConnsPerHost": 2000},
        }
    )


def traefik_routes(upstream_port: int) -> str:
    """Return Traefik's dynamic configuration: everything to the origin, flushed at once."""
    balancer = {"responseForwarding": {"flushInterval": "-1ms"}, "servers": [{"url": f"http://127.0.0.1:{upstream_port}"}]}
    return json.dumps(
        {
            "http": {
                "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "origin", "entryPoints": ["web"]}},
                "services": {"origin": {"loadBalancer": balancer}},
            }
        }
    )
