//! The dashboard: static files, compiled in, that ask the rest of this server for everything they
//! show. They tell nothing by themselves, so anybody may have them.

use axum::Router;
use axum::http::header;
use axum::routing::get;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Path, type and text of each file. `/` is the page itself.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/api.js", SCRIPT, include_str!("page/api.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/format.js", SCRIPT, include_str!("page/format.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/names.js", SCRIPT, include_str!("page/names.js")),
    ("/sign-in.js", SCRIPT, include_str!("page/sign-in.js")),
    ("/style.css", STYLE, include_str!("page/style.css")),
    ("/sure.js", SCRIPT, include_str!("page/sure.js")),
    ("/table.js", SCRIPT, include_str!("page/table.js")),
    ("/theme.js", SCRIPT, include_str!("page/theme.js")),
    ("/view-audit.js", SCRIPT, include_str!("page/view-audit.js")),
    ("/view-experiments.js", SCRIPT, include_str!("page/view-experiments.js")),
    ("/view-forecasts.js", SCRIPT, include_str!("page/view-forecasts.js")),
    ("/view-holdings.js", SCRIPT, include_str!("page/view-holdings.js")),
    ("/view-leases.js", SCRIPT, include_str!("page/view-leases.js")),
    ("/view-limits.js", SCRIPT, include_str!("page/view-limits.js")),
    ("/view-market.js", SCRIPT, include_str!("page/view-market.js")),
    ("/view-overview.js", SCRIPT, include_str!("page/view-overview.js")),
    ("/view-swaps.js", SCRIPT, include_str!("page/view-swaps.js")),
    ("/uplot/uPlot.iife.min.js", SCRIPT, include_str!("page/uplot/uPlot.iife.min.js")),
    ("/uplot/LICENSE", "text/plain; charset=utf-8", include_str!("page/uplot/LICENSE")),
    ("/uplot/uPlot.min.css", STYLE, include_str!("page/uplot/uPlot.min.css")),
];

/// Scripts, styles, pictures and questions are this server's own; nobody frames the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || async move { (headers, text) }))
    })
}
