//! One string with a template in it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::value::Object;
use minijinja::{Environment, Expression, Value as Engine};
use serde_json::Value;

use super::engine::{self, ENGINE};
use super::json::{self, Budget, Stop};
use super::path::{self, Called, Path};
use super::scan::{self, Piece, Scan};
use super::view::{Data, View};
use super::{ExprError, Library, Scope, TemplateError};
use crate::secret::keychain::Reference;

/// Most expressions that a text template evaluates one by one; beyond it the engine runs it as a whole, on one fuel.
const EXPRESSIONS_APART_MAX: usize = 32;
/// Longest piece of a template that an error message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// A compiled template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Template(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<str>,
    roots: Vec<Arc<str>>,
    kind: Kind,
    /// Line and column in its playbook.
    place: Option<(u32, u32)>,
}

#[derive(Debug)]
enum Kind {
    /// Text without anything to evaluate.
    Plain,
    /// A lone expression: keeps its type.
    Single(Part),
    /// Text with expressions in it.
    Text(Vec<Part>),
    /// Text with statements in it.
    Program(Program),
}

#[derive(Debug)]
enum Part {
    Text(Box<str>),
    Path(Path),
    Expression(Compiled),
}

/// An expression that the engine evaluates. Its paths were taken out and are followed by us.
struct Compiled {
    expression: Expression<'static, 'static>,
    paths: Arc<[Path]>,
}

/// A template that the engine runs as a whole.
struct Program {
    engine: Environment<'static>,
}

/// What one part came to.
enum Outcome {
    View(View),
    Engine(Engine),
}

impl Template {
    /// Compiles `source`. Text without a template in it is one, too: it means itself.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        Template::read(source).map_err(|error| error.within(source))
    }

    fn read(source: &str) -> Result<Self, TemplateError> {
        let mut roots = BTreeSet::new();
        let kind = match scan::scan(source)? {
            Scan::Plain => Kind::Plain,
            Scan::Single(piece) => Kind::Single(compile_part(piece, &mut roots)?),
            Scan::Pieces(pieces) => {
                let apart = pieces.iter().filter(|piece| piece.expression && Path::parse(piece.text).is_none()).count();
                match apart > EXPRESSIONS_APART_MAX {
                    true => {
                        let insides = pieces.iter().filter(|piece| piece.expression).map(|piece| piece.text);
                        Kind::Program(Program::compile(source, &insides.collect::<Vec<_>>(), &mut roots)?)
                    }
                    false => {
                        let parts = pieces.into_iter().map(|piece| compile_part(piece, &mut roots));
                        Kind::Text(parts.collect::<Result<_, _>>()?)
                    }
                }
            }
            Scan::Program(insides) => Kind::Program(Program::compile(source, &insides, &mut roots)?),
        };
        Ok(Template::of(source, roots, kind))
    }

    fn of(source: &str, roots: BTreeSet<Arc<str>>, kind: Kind) -> Self {
        let roots = roots.into_iter().collect();
        Template(Arc::new(Inner { source: Arc::from(source), roots, kind, place: None }))
    }

    /// Returns the template, which stands there in its playbook: what goes wrong in it says so.
    #[must_use]
    pub fn placed(mut self, line: u32, column: u32) -> Self {
        // It was compiled just now, so nobody else has it.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.place = Some((line, column));
        }
        self
    }

    /// Returns whether it is text with expressions in it, and more than white space around them.
    pub(super) fn has_text_around(&self) -> bool {
        match &self.0.kind {
            Kind::Text(parts) => parts.iter().any(|part| matches!(part, Part::Text(text) if !text.trim().is_empty())),
            Kind::Plain | Kind::Single(_) | Kind::Program(_) => false,
        }
    }

    /// Compiles an expression without braces around it.
    pub(super) fn compile_raw(expression: &str) -> Result<Self, TemplateError> {
        // The engine's text is scanned for its bounds only.
        let braced = format!("{{{{ {expression} }}}}");
        scan::scan(&braced).map_err(|error| TemplateError { range: None, ..error })?;
        let mut roots = BTreeSet::new();
        let piece = Piece { text: expression.trim(), start: 0, expression: true };
        let part = compile_part(piece, &mut roots).map_err(|error| error.within(expression))?;
        Ok(Template::of(expression, roots, Kind::Single(part)))
    }

    /// Returns what the template means in `scope`: a native value for a lone expression, else text.
    ///
    /// Undefined is null. In text, undefined and null print as nothing, booleans as `True` and `False`, lists and
    /// maps as Python prints them; `tojson` makes JSON of them.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        self.render_within(scope, &mut Budget::default())
    }

    pub(super) fn render_within(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, ExprError> {
        let evaluation = Evaluation::new(self, scope);
        let outcome = match &self.0.kind {
            Kind::Plain => json::copy(&Value::from(&*self.0.source), budget),
            Kind::Single(part) => evaluation.evaluate(part).and_then(|outcome| match outcome {
                Outcome::View(view) => json::from_view(&view, budget),
                Outcome::Engine(value) => json::from_engine(&value, budget),
            }),
            Kind::Text(parts) => evaluation.print(parts, budget).map(Value::String),
            Kind::Program(program) => program.run(&evaluation).and_then(|text| {
                budget.pay(text.len())?;
                Ok(Value::String(text))
            }),
        };
        evaluation.conclude(outcome)
    }

    /// Returns whether the template's value is true, as conditions see it.
    pub(super) fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        let Kind::Single(part) = &self.0.kind else {
            return self.render(scope).map(|value| is_true(&value));
        };
        let evaluation = Evaluation::new(self, scope);
        let outcome = evaluation.evaluate(part).and_then(|outcome| match outcome {
            // What is stored apart is large, so it is not empty: no need to load it.
            Outcome::View(view) if view.is_summary_of_object() => Ok(true),
            Outcome::View(view) => match view.data() {
                Data::Undefined => Ok(false),
                Data::Needed => Err(Stop::Needed),
                Data::Json(value) => Ok(is_true(value)),
                Data::Entries(entries) => Ok(!entries.is_empty()),
                Data::Text(text) => Ok(is_true_text(text)),
            },
            Outcome::Engine(value) => Ok(match value.as_str() {
                Some(text) => is_true_text(text),
                None => value.is_true(),
            }),
        });
        evaluation.conclude(outcome)
    }

    /// Returns the template as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Returns the names that the template reads, in alphabetical order.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.0.roots.iter().map(|name| &**name)
    }
}

/// Returns whether a condition with this value is true.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => is_true_text(text),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn is_true_text(text: &str) -> bool {
    let text = text.trim();
    !["", "false", "0", "no", "none", "null", "off", "{}", "[]"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn compile_part(piece: Piece<'_>, roots: &mut BTreeSet<Arc<str>>) -> Result<Part, TemplateError> {
    if !piece.expression {
        return Ok(Part::Text(Box::from(piece.text)));
    }
    if let Some(path) = Path::parse(piece.text) {
        roots.insert(Arc::clone(&path.root));
        return Ok(Part::Path(path));
    }
    let refuse = |error: minijinja::Error| engine::refuse(&error, piece.start);
    let written = ENGINE.compile_expression_owned(piece.text.to_owned()).map_err(refuse)?;
    roots.extend(written.undeclared_variables(false).into_iter().map(Arc::from));
    let rewritten = path::rewrite(piece.text);
    check_called(&rewritten.called, piece.start)?;
    roots.extend(rewritten.paths.iter().map(|path| Arc::clone(&path.root)));
    // What the engine accepted it accepts with other names; should it not, the expression runs as written.
    let compiled = match ENGINE.compile_expression_owned(rewritten.source) {
        Ok(expression) => Compiled { expression, paths: Arc::from(rewritten.paths) },
        Err(_) => Compiled { expression: written, paths: Arc::from([]) },
    };
    Ok(Part::Expression(compiled))
}

/// Refuses filters and tests that the engine does not have, and methods that would change something; the engine would
/// only say so when the template runs.
fn check_called(called: &[(Called, String, usize)], offset: usize) -> Result<(), TemplateError> {
    match called.iter().find(|(what, name, _)| !engine::knows(*what, name)) {
        Some((what, name, at)) => {
            let message = match what {
                Called::Filter => format!("there is no filter `{name}`"),
                Called::Test => format!("there is no test `{name}`"),
                Called::Method => format!("`.{name}()` would change a value, which no template does"),
            };
            let start = offset + at;
            Err(TemplateError { message, range: Some(start..start + name.len()) })
        }
        None => Ok(()),
    }
}

impl Program {
    const NAME: &'static str = "template";

    fn compile(source: &str, insides: &[&str], roots: &mut BTreeSet<Arc<str>>) -> Result<Self, TemplateError> {
        let mut engine = ENGINE.clone();
        let refuse = |error: minijinja::Error| engine::refuse(&error, 0);
        engine.add_template_owned(Program::NAME, source.to_owned()).map_err(refuse)?;
        let names = engine.get_template(Program::NAME).map_err(refuse)?.undeclared_variables(false);
        roots.extend(names.into_iter().map(Arc::from));
        for inside in insides {
            let start = inside.as_ptr() as usize - source.as_ptr() as usize;
            let rewritten = path::rewrite(inside);
            check_called(&rewritten.called, start)?;
            roots.extend(rewritten.indexed_names());
        }
        Ok(Program { engine })
    }

    fn run(&self, evaluation: &Evaluation<'_>) -> Result<String, Stop> {
        let template = self.engine.get_template(Program::NAME);
        let text = template.and_then(|template| template.render(evaluation.context(&Arc::from([]))));
        text.map_err(|error| Stop::Other(engine::describe(&error)))
    }
}

/// The names that a template reads, and what they mean.
type LookedUp = Arc<[(Arc<str>, Option<View>)]>;

/// One rendering of one template.
struct Evaluation<'a> {
    template: &'a Template,
    scope: &'a Scope<'a>,
    misses_before: u64,
    names: OnceLock<LookedUp>,
}

impl<'a> Evaluation<'a> {
    fn new(template: &'a Template, scope: &'a Scope<'a>) -> Self {
        Evaluation { template, scope, misses_before: scope.library.misses(), names: OnceLock::new() }
    }

    fn evaluate(&self, part: &Part) -> Result<Outcome, Stop> {
        match part {
            Part::Text(text) => Ok(Outcome::View(View::Text(Arc::from(&**text)))),
            Part::Path(path) => Ok(Outcome::View(match self.scope.names.lookup(&path.root) {
                Some(binding) => View::of(binding, self.scope.library).follow(&path.segments),
                None => View::Undefined,
            })),
            Part::Expression(compiled) => {
                let value = compiled.expression.eval(self.context(&compiled.paths));
                value.map(Outcome::Engine).map_err(|error| Stop::Other(engine::describe(&error)))
            }
        }
    }

    fn print(&self, parts: &[Part], budget: &mut Budget) -> Result<String, Stop> {
        let mut out = String::new();
        let mut needed = false;
        for part in parts {
            let before = out.len();
            match self.evaluate_text(part, &mut out) {
                Ok(()) => budget.pay(out.len() - before)?,
                // Go on, so that one look into storage finds everything.
                Err(Stop::Needed) => needed = true,
                Err(stop) if self.missed() => {
                    needed = true;
                    drop(stop);
                }
                Err(stop) => return Err(stop),
            }
        }
        if needed { Err(Stop::Needed) } else { Ok(out) }
    }

    fn evaluate_text(&self, part: &Part, out: &mut String) -> Result<(), Stop> {
        if let Part::Text(text) = part {
            out.push_str(text);
            return Ok(());
        }
        let value = match self.evaluate(part)? {
            Outcome::View(view) => match view.data() {
                Data::Undefined | Data::Json(Value::Null) => return Ok(()),
                Data::Needed => return Err(Stop::Needed),
                Data::Text(text) => {
                    out.push_str(text);
                    return Ok(());
                }
                Data::Json(Value::String(text)) => {
                    out.push_str(text);
                    return Ok(());
                }
                Data::Json(_) | Data::Entries(_) => json::to_engine(view.clone()),
            },
            Outcome::Engine(value) if value.is_none() => return Ok(()),
            Outcome::Engine(value) => value,
        };
        match value.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&value.to_string()),
        }
        Ok(())
    }

    /// Returns what the engine sees: the names of this template, looked up once, and the paths of one expression.
    fn context(&self, paths: &Arc<[Path]>) -> Engine {
        let names = self.names.get_or_init(|| {
            let look_up = |name: &Arc<str>| {
                let view = self.scope.names.lookup(name).map(|binding| View::of(binding, self.scope.library));
                (Arc::clone(name), view)
            };
            self.template.0.roots.iter().map(look_up).collect()
        });
        let now = self.scope.now;
        let library = self.scope.names.may_ask_secrets().then(|| Arc::clone(self.scope.library));
        Engine::from_object(Context { names: Arc::clone(names), paths: Arc::clone(paths), now, library })
    }

    fn missed(&self) -> bool {
        self.scope.library.misses() != self.misses_before
    }

    fn conclude<T>(&self, outcome: Result<T, Stop>) -> Result<T, ExprError> {
        // The engine may have gone on with what was not there: an undefined, an error. None of it counts.
        if self.missed() {
            return Err(ExprError::Needs);
        }
        outcome.map_err(|stop| match stop {
            Stop::Needed => ExprError::Needs,
            Stop::Deep | Stop::Large | Stop::Other(_) => {
                let place = match self.template.0.place {
                    Some((line, column)) => format!(" (line {line}, column {column})"),
                    None => String::new(),
                };
                ExprError::Failed { message: format!("{stop} in `{}`{place}", quote(&self.template.0.source)) }
            }
        })
    }
}

fn quote(source: &str) -> String {
    let line = source.trim();
    match line.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// What one expression can see.
#[derive(Debug)]
struct Context {
    names: LookedUp,
    paths: Arc<[Path]>,
    now: crate::time::Timestamp,
    /// Where secrets are, if they may be asked for.
    library: Option<Arc<Library>>,
}

impl Context {
    fn name(&self, name: &str) -> Option<View> {
        self.names.iter().find(|(known, _)| **known == *name).and_then(|(_, view)| view.clone())
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Engine> {
        if let Some(path) = path::slot_number(key).and_then(|n| self.paths.get(n)) {
            let view = self.name(&path.root)?.follow(&path.segments);
            return Some(json::to_engine(view));
        }
        match self.name(key) {
            Some(view) => Some(json::to_engine(view)),
            None if key == "now" => {
                let now = self.now.to_iso();
                Some(Engine::from_function(move || now.clone()))
            }
            None if key == "token" => {
                let library = Arc::clone(self.library.as_ref()?);
                Some(Engine::from_function(move |alias: String| {
                    let view = View::of(Reference::Token(alias.into()).binding(), &library);
                    match view.data() {
                        // Asking has noted the need.
                        Data::Undefined | Data::Needed => Engine::UNDEFINED,
                        Data::Json(_) | Data::Text(_) | Data::Entries(_) => json::to_engine(view.clone()),
                    }
                }))
            }
            None => None,
        }
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}
