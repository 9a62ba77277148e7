//! Problems with a topology: collected while it is read, so that all come at once, and shown as rustc shows its own.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::source::{Lines, Place, Source};

/// Everything that is wrong with a topology, and the texts to show it in.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub problems: Vec<Problem>,
    sources: Vec<Source>,
}

/// One refusal, or one warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    /// Empty where the problem belongs to no file.
    pub file: String,
    /// From 1; 0 where there is no place.
    pub line: usize,
    /// In characters, from 1; 0 where there is no place.
    pub col: usize,
    /// Bytes of the file.
    pub span: Range<usize>,
    /// AWS's error code, where AWS refuses the same.
    pub code: Option<&'static str>,
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The other objects in conflict.
    pub also: Vec<Also>,
    #[serde(skip)]
    source: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// A second place that a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Also {
    pub file: String,
    pub line: usize,
    pub col: usize,
    pub span: Range<usize>,
    pub message: String,
    #[serde(skip)]
    source: usize,
}

/// More than this many are counted, not shown.
const SHOWN: usize = 50;
/// A line longer than this is not quoted, bytes. Of shorter ones that are wider than a screen, the part around the
/// place is shown; a whole topology may stand in one line, as JSON.
const LONGEST_QUOTE: usize = 16 << 10;

impl Report {
    /// A report of one problem that belongs to no place in a file.
    pub fn of(file: &str, message: impl Into<String>) -> Report {
        let problem = Problem {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            col: 0,
            span: 0..0,
            code: None,
            message: message.into(),
            help: None,
            also: Vec::new(),
            source: None,
        };
        Report { problems: vec![problem], sources: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// As rustc would print it, one block per problem, ending in a line feed.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for p in self.problems.iter().take(SHOWN) {
            out.push_str(&renderer.render(&[self.group(p)]));
            out.push_str("\n\n");
        }
        if self.problems.len() > SHOWN {
            out.push_str(&format!("and {} more\n", self.problems.len() - SHOWN));
        }
        out
    }

    fn group<'a>(&'a self, p: &'a Problem) -> Group<'a> {
        let level = match p.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = if p.source.is_none() && !p.file.is_empty() {
            format!("{}: {}", p.file, p.message)
        } else {
            p.message.clone()
        };
        let mut title = level.primary_title(message);
        if let Some(code) = p.code {
            title = title.id(code);
        }
        let mut group = Group::with_title(title);
        if let Some(source) = p.source {
            group = self.quote(group, source, &p.span, &p.file, None);
        }
        for also in &p.also {
            group = self.quote(group, also.source, &also.span, &also.file, Some(&also.message));
        }
        match &p.help {
            Some(help) => group.element(Level::HELP.message(help.clone())),
            None => group,
        }
    }

    /// The line of a place with a caret under it; of a span over several lines, the first.
    fn quote<'a>(
        &'a self,
        group: Group<'a>,
        source: usize,
        span: &Range<usize>,
        file: &'a str,
        label: Option<&'a str>,
    ) -> Group<'a> {
        let text = self.sources[source].text();
        let start = span.start.min(text.len());
        let from = text[..start].rfind('\n').map_or(0, |n| n + 1);
        let to = text[start..].find('\n').map_or(text.len(), |n| start + n);
        let line = text[from..to].trim_end_matches('\r');
        let number = text[..start].matches('\n').count() + 1;
        let col = text[from..start].chars().count() + 1;
        if line.len() > LONGEST_QUOTE {
            let text = match label {
                Some(l) => format!("{l}: {file}:{number}:{col}"),
                None => format!("at {file}:{number}:{col}"),
            };
            return group.element(Level::NOTE.message(text));
        }
        let begin = (start - from).min(line.len());
        let end = span.end.saturating_sub(from).clamp(begin, line.len());
        let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
        let mut annotation = kind.span(begin..end.max(begin));
        if let Some(label) = label {
            annotation = annotation.label(label);
        }
        group.element(Snippet::source(line).line_start(number).path(file).annotation(annotation))
    }
}

/// `FILE:LINE:COL: CODE: message`, a line each.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.problems {
            writeln!(f, "{p}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.col)?;
        }
        if let Some(code) = self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

/// A problem as readers note it, before its place is looked up.
#[derive(Clone, Debug)]
pub struct Found {
    place: Option<Place>,
    code: Option<&'static str>,
    message: String,
    help: Option<String>,
    also: Vec<(Place, String)>,
}

impl Found {
    pub fn at(place: Place, message: impl Into<String>) -> Found {
        Found { place: Some(place), code: None, message: message.into(), help: None, also: Vec::new() }
    }

    pub fn code(mut self, code: &'static str) -> Found {
        self.code = Some(code);
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Found {
        self.help = Some(help.into());
        self
    }

    pub fn maybe_help(mut self, help: Option<String>) -> Found {
        self.help = help.or(self.help);
        self
    }

    pub fn also(mut self, place: Place, label: impl Into<String>) -> Found {
        self.also.push((place, label.into()));
        self
    }
}

/// Where readers put what they find. Interior mutability, because every reader of a tree notes problems while it
/// holds parts of it.
#[derive(Debug, Default)]
pub struct Problems {
    errors: RefCell<Vec<Found>>,
    warnings: RefCell<Vec<Found>>,
    /// Scalars that were found wrong already: what readers make of them is noise.
    spoiled: RefCell<Vec<Place>>,
}

/// A hostile file could have millions.
const KEPT: usize = 1_000;

impl Problems {
    pub fn error(&self, found: Found) {
        let within =
            |p: Place, of: &Place| p.file == of.file && (of.start..of.end.max(of.start + 1)).contains(&p.start);
        if found.place.is_some_and(|p| self.spoiled.borrow().iter().any(|of| within(p, of))) {
            return;
        }
        let mut errors = self.errors.borrow_mut();
        if errors.len() < KEPT {
            errors.push(found);
        }
    }

    /// Notes a problem, and that nothing more is to be said of its place.
    pub fn last_error(&self, found: Found) {
        let place = found.place;
        self.error(found);
        self.spoiled.borrow_mut().extend(place);
    }

    pub fn warning(&self, found: Found) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < KEPT {
            warnings.push(found);
        }
    }

    /// No more problems are kept: suggestions for further ones would be work for nobody.
    pub fn is_full(&self) -> bool {
        self.errors.borrow().len() >= KEPT
    }

    pub fn any(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Errors and warnings with their places looked up, each in the order of the files.
    pub fn finish(self, sources: &[Source]) -> (Report, Report) {
        let lines: Vec<Lines<'_>> = sources.iter().map(Lines::of).collect();
        let report = |found: Vec<Found>, severity| {
            let mut problems: Vec<Problem> = found.into_iter().map(|f| resolve(f, severity, sources, &lines)).collect();
            problems.sort_by_key(|p| (p.source, p.span.start));
            problems.dedup();
            Report { problems, sources: sources.to_vec() }
        };
        (report(self.errors.into_inner(), Severity::Error), report(self.warnings.into_inner(), Severity::Warning))
    }
}

fn resolve(found: Found, severity: Severity, sources: &[Source], lines: &[Lines<'_>]) -> Problem {
    let place = found.place.and_then(|p| locate(p, lines));
    let (file, line, col, span, source) = match place {
        Some((source, line, col, span)) => (sources[source].path.clone(), line, col, span, Some(source)),
        None => (String::new(), 0, 0, 0..0, None),
    };
    let also = found
        .also
        .into_iter()
        .filter_map(|(place, message)| {
            let (source, line, col, span) = locate(place, lines)?;
            Some(Also { file: sources[source].path.clone(), line, col, span, message, source })
        })
        .collect();
    Problem {
        severity,
        file,
        line,
        col,
        span,
        code: found.code,
        message: found.message,
        help: found.help,
        also,
        source,
    }
}

fn locate(place: Place, lines: &[Lines<'_>]) -> Option<(usize, usize, usize, Range<usize>)> {
    let source = place.file as usize;
    let lines = lines.get(source)?;
    let text = lines.text;
    let mut start = (place.start as usize).min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = (place.end as usize).clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let (line, col) = lines.line_col(start);
    Some((source, line, col, start..end))
}

/// The known word that was probably meant, if one is near.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|k| format!("did you mean `{k}`?"))
}

/// The known word nearest to `word`: at most a third of its letters differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 100 {
        return None;
    }
    let lower = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .filter_map(|k| {
            let distance = strsim::damerau_levenshtein(&lower, &k.to_lowercase().replace('-', "_"));
            let longest = lower.len().max(k.len());
            let near = distance <= longest.div_ceil(3).max(1) && distance < longest;
            near.then_some((distance, k))
        })
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}
