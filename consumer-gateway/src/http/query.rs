//! The parameters of a request for lines. Input: the raw query and the format. Output: what the reader is asked, or which parameter is wrong.

use fairlead_contract::namespace::Namespace;
use fairlead_service_kit::units::parse_duration;
use jiff::Timestamp;

use super::problem::ApiError;
use crate::read::{
    Late, Request, Settings, Start,
    filter::{Filter, Moment, pattern},
    render::{Format, Prefix},
};

/// The most values of a parameter that may be repeated.
const VALUES_MAX: usize = 64;
/// The longest query, in bytes.
const QUERY_BYTES_MAX: usize = 32 * 1024;

/// The parameters of `/v1/namespaces/{namespace}/logs`, and which of them may come more than once.
pub const PARAMETERS: [(&str, bool); 15] = [
    ("since", false),
    ("until", false),
    ("late", false),
    ("tail", false),
    ("limit", false),
    ("cursor", false),
    ("before", false),
    ("follow", false),
    ("pod", true),
    ("container", true),
    ("stream", false),
    ("grep", false),
    ("grep_not", false),
    ("prefix", false),
    ("timestamps", false),
];

/// What a body may be asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/x-ndjson`.
    Ndjson,
    /// `text/plain`.
    Text,
}

/// The values of a query, each known.
struct Values(Vec<(String, String)>);

impl Values {
    fn parse(query: Option<&str>, parameters: &[(&str, bool)]) -> Result<Self, ApiError> {
        let query = query.unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(ApiError::parameter("query", format!("the query has at most {QUERY_BYTES_MAX} bytes")));
        }
        let mut values: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let Some((_, repeats)) = parameters.iter().find(|(known, _)| *known == name) else {
                return Err(ApiError::parameter(&name, "is not known here"));
            };
            let before = values.iter().filter(|(known, _)| *known == name).count();
            if before > 0 && !repeats {
                return Err(ApiError::parameter(&name, "came more than once"));
            }
            if before >= VALUES_MAX {
                return Err(ApiError::parameter(&name, format!("came more than {VALUES_MAX} times")));
            }
            values.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(values))
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.one(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(ApiError::parameter(name, "is true or false")),
        }
    }

    fn number(&self, name: &str, max: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let number =
            Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
        match number.filter(|number| *number <= max) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::parameter(name, format!("is a whole number, at most {max}"))),
        }
    }

    fn moment(&self, name: &str, now: Timestamp) -> Result<Option<Moment>, ApiError> {
        let Some(text) = self.one(name) else { return Ok(None) };
        if let Ok(ago) = parse_duration(text) {
            return Ok(Some(Moment::of(now.checked_sub(ago).unwrap_or(Timestamp::MIN))));
        }
        // A plus sign that was not encoded arrives as a space.
        match text.replace(' ', "+").parse::<Timestamp>() {
            Ok(at) => Ok(Some(Moment::of(at))),
            Err(_) => {
                Err(ApiError::parameter(name, "is a time such as 2026-11-20T10:00:00Z, or how long ago, such as 15m"))
            }
        }
    }

    fn pattern(&self, name: &str) -> Result<Option<regex::bytes::Regex>, ApiError> {
        self.one(name)
            .map(|text| pattern(text).map_err(|error| ApiError::parameter(name, error.to_string())))
            .transpose()
    }

    fn excludes(&self, name: &str, other: &str) -> Result<(), ApiError> {
        match (self.one(name), self.one(other)) {
            (Some(_), Some(_)) => Err(ApiError::parameter(name, format!("does not go together with `{other}`"))),
            _ => Ok(()),
        }
    }
}

/// Refuses every parameter, for requests that take none.
///
/// # Errors
/// [`ApiError::Parameter`] that names the first.
pub fn none(query: Option<&str>) -> Result<(), ApiError> {
    Values::parse(query, &[]).map(drop)
}

/// Reads the parameters of a request for lines.
///
/// # Errors
/// [`ApiError::Parameter`] that names the first that is wrong.
pub fn logs(
    namespace: Namespace,
    query: Option<&str>,
    accepted: Option<Kind>,
    now: Timestamp,
    settings: &Settings,
) -> Result<Request, ApiError> {
    let values = Values::parse(query, &PARAMETERS)?;
    let kind = accepted.ok_or(ApiError::NotAcceptable)?;
    let follow = values.flag("follow")?;
    if follow && values.one("until").is_some() {
        return Err(ApiError::parameter("until", "does not go together with `follow`"));
    }
    if values.one("until").is_none() && values.one("late").is_some() {
        return Err(ApiError::parameter("late", "goes only together with `until`"));
    }
    values.excludes("tail", "cursor")?;
    values.excludes("before", "cursor")?;
    if follow && values.one("before").is_some() {
        return Err(ApiError::parameter("before", "does not go together with `follow`"));
    }
    let mut filter = Filter {
        pods: values.all("pod"),
        containers: values.all("container"),
        stream: stream(&values)?,
        since: values.moment("since", now)?,
        until: values.moment("until", now)?,
        grep: values.pattern("grep")?,
        grep_not: values.pattern("grep_not")?,
    };
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since > until
    {
        return Err(ApiError::parameter("since", "is after `until`, so that there is nothing between them"));
    }
    let tail = values.number("tail", settings.tail_max)?;
    let asked = match values.number("limit", settings.limit_max)? {
        Some(0) => return Err(ApiError::parameter("limit", "is at least 1")),
        asked => asked,
    };
    let before = values.one("before").map(str::to_owned);
    let start = match (values.one("cursor"), tail, filter.since) {
        (Some(cursor), _, _) => Start::Cursor(cursor.to_owned()),
        (None, Some(lines), _) => Start::Last { lines, before },
        (None, None, _) if before.is_some() => Start::Last { lines: asked.unwrap_or(settings.limit), before },
        (None, None, Some(since)) => Start::At(since),
        (None, None, None) => {
            let window = now.checked_sub(settings.window).unwrap_or(Timestamp::MIN);
            let begin =
                filter.until.map_or(Moment::of(window), |until| Moment::of(window).min(until.earlier(settings.window)));
            filter.since = Some(begin);
            Start::At(begin)
        }
    };
    let limit = match asked {
        None if follow || matches!(start, Start::Last { .. }) => None,
        None => Some(settings.limit),
        asked => asked,
    };
    let format = format(&values, kind, &filter)?;
    Ok(Request { namespace, start, late: late(&values, settings)?, limit, follow, filter, format })
}

fn stream(values: &Values) -> Result<Option<String>, ApiError> {
    match values.one("stream") {
        None => Ok(None),
        Some(stream @ ("stdout" | "stderr" | "fairlead")) => Ok(Some(stream.to_owned())),
        Some(_) => Err(ApiError::parameter("stream", "is stdout, stderr or fairlead")),
    }
}

fn late(values: &Values, settings: &Settings) -> Result<Late, ApiError> {
    match values.one("late") {
        None => Ok(Late::Within(settings.late)),
        Some("all") => Ok(Late::All),
        Some(text) => match parse_duration(text) {
            Ok(late) => Ok(Late::Within(late)),
            Err(_) => Err(ApiError::parameter("late", "is how long, such as 5m, or all")),
        },
    }
}

fn format(values: &Values, kind: Kind, filter: &Filter) -> Result<Format, ApiError> {
    let timestamps = values.flag("timestamps")?;
    let prefix = match values.one("prefix") {
        None | Some("auto") => Prefix::Auto,
        Some("pod") => Prefix::Pod,
        Some("none") => Prefix::None,
        Some(_) => return Err(ApiError::parameter("prefix", "is auto, pod or none")),
    };
    Ok(match kind {
        Kind::Ndjson => Format::Ndjson,
        Kind::Text => {
            let one_container = filter.pods.len() == 1 && filter.containers.len() == 1;
            let prefix = match prefix {
                Prefix::Auto => !one_container,
                Prefix::Pod => true,
                Prefix::None => false,
            };
            Format::Text { prefix, timestamps }
        }
    })
}

/// The best format that `Accept` headers take; `None` when there is none.
pub fn accepted<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Kind> {
    let mut any = false;
    // For each format the quality of the most specific range that names it.
    let (mut ndjson, mut text) = ((0, 0.0_f32), (0, 0.0_f32));
    for range in headers.flat_map(|header| header.split(',')).map(str::trim).filter(|range| !range.is_empty()) {
        any = true;
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
            .map_or(1.0, |q| q.parse().unwrap_or(0.0));
        let offer = |format: &mut (u8, f32), exact: &[&str], family: &str| {
            let specific = match name.as_str() {
                name if exact.contains(&name) => 3,
                name if name == family => 2,
                "*/*" => 1,
                _ => return,
            };
            if specific > format.0 {
                *format = (specific, quality);
            }
        };
        offer(&mut ndjson, &["application/x-ndjson", "application/ndjson"], "application/*");
        offer(&mut text, &["text/plain"], "text/*");
    }
    match (any, ndjson.1, text.1) {
        (false, _, _) => Some(Kind::Ndjson),
        (true, ndjson, text) if ndjson > 0.0 && ndjson >= text => Some(Kind::Ndjson),
        (true, _, text) if text > 0.0 => Some(Kind::Text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
