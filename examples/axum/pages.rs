//! The pages, in HTML.

use std::fmt::Write as _;
use std::sync::Arc;

use sea_orm_cache::Stats;

use crate::city;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}\
table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}\
.bar{display:inline-block;height:.7rem;background:#2a7;vertical-align:middle}.sum{font-size:2rem;margin:.2rem 0}\
.warn{color:#b00}nav a{margin-right:1rem}";

/// The cities, in their order.
pub fn cities(cities: &[Arc<city::Model>]) -> String {
    let mut rows = String::new();
    for city in cities {
        let (name, country) = (escaped(&city.name), escaped(&city.country));
        // Writing to a String does not fail.
        let _ = write!(
            rows,
            "<tr><td><a href=\"/cities/{}\">{name}</a></td><td>{country}</td><td>{}</td></tr>",
            city.id, city.population
        );
    }
    let head = "<tr><th>City</th><th>Country</th><th>Inhabitants</th></tr>";
    page("The largest cities", &table(head, &rows))
}

/// What the cache does.
pub fn cache(stats: &Stats) -> String {
    let rate = stats
        .hit_rate()
        .map_or("no look-ups yet".to_owned(), |rate| {
            format!("{:.1} % hits", rate * 100.0)
        });
    let state = match (stats.degraded, stats.undelivered) {
        (false, 0) => "The cache answers.".to_owned(),
        (degraded, undelivered) => format!(
            "<span class=\"warn\">{}{undelivered} invalidations wait.</span>",
            if degraded {
                "The cache is not asked. "
            } else {
                ""
            }
        ),
    };
    let mut rows = String::new();
    for (name, entity) in &stats.entities {
        let lookups = entity.hits + entity.misses;
        let part = if lookups == 0 {
            0.0
        } else {
            entity.hits as f64 / lookups as f64
        };
        let mean = entity.load_time.as_secs_f64() * 1e3 / entity.loads.max(1) as f64;
        let _ = write!(
            rows,
            "<tr><td>{}</td><td><span class=\"bar\" style=\"width:{:.0}px\"></span> {:.1} %</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{mean:.2}</td><td>{:.2}</td><td>{}</td><td>{}</td></tr>",
            escaped(name),
            part * 80.0,
            part * 100.0,
            entity.hits,
            entity.misses,
            entity.loads,
            entity.slowest_load.as_secs_f64() * 1e3,
            entity.invalidations,
            entity.errors,
        );
    }
    let head = "<tr><th>Entity or namespace</th><th>Hit rate</th><th>Hits</th><th>Misses</th><th>Loads</th>\
                <th>Mean, ms</th><th>Slowest, ms</th><th>Invalidated keys</th><th>Errors</th></tr>";
    let body = format!(
        "<p class=\"sum\">{rate}</p><p>{state} {} round trips.</p>{}",
        stats.round_trips,
        table(head, &rows)
    );
    page("The cache", &body)
}

fn table(head: &str, rows: &str) -> String {
    format!("<table><thead>{head}</thead><tbody>{rows}</tbody></table>")
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         <nav><a href=\"/\">Cities</a><a href=\"/ranking\">Ranking</a><a href=\"/me\">Session</a>\
         <a href=\"/cache\">Cache</a><a href=\"/metrics\">Metrics</a></nav><h1>{title}</h1>{body}</html>"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
