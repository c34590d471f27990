//! Lists: filters, order, cursor and limit over the columns of a kind. What a caller names is checked against
//! the kind; nothing of it reaches SQL as text.

use crate::error::{Error, Result};
use crate::heads::total_value;
use crate::id::Id;
use crate::kind::{Field, Kind, Merge};
use crate::listing::MOST_KEYS;
use crate::record::Record;
use crate::schema::table_of;
use crate::value::Value;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bincode::{Decode, Encode};
use std::fmt::Write;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cursor {
    pub value: Value,
    pub key: Id,
}

impl Cursor {
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(crate::codec::encode(self))
    }

    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 2_000 {
            return None;
        }
        crate::codec::decode(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

#[derive(Clone, Debug)]
pub struct Page {
    pub records: Vec<Record>,
    pub next: Option<Cursor>,
    /// Of all pages together.
    pub total: u64,
}

/// Records that are counted as they change.
pub(crate) struct Bucket<'q> {
    pub column: &'q str,
    pub value: Value,
    /// Asked for is what is not in it.
    pub is_rest: bool,
}

#[derive(Clone)]
enum Test {
    Is(String, &'static str, Value),
    IsNull(String, bool),
    AnyOf(String, Vec<Value>),
    Contains(u16, Value),
    /// A column, or else a set, that holds the value.
    Names(String, u16, Value),
    /// A column that refers to a record which matches.
    Within(String, Box<Query>),
}

#[derive(Clone)]
pub struct Query {
    pub kind: &'static Kind,
    tenant: Option<Id>,
    tests: Vec<Test>,
    sort: String,
    descending: bool,
    after: Option<Cursor>,
    limit: usize,
    bodies: bool,
    totals: bool,
}

impl Query {
    pub fn of(kind: &'static Kind, tenant: Id) -> Self {
        Self {
            kind,
            tenant: Some(tenant),
            tests: vec![],
            sort: "created_at".into(),
            descending: false,
            after: None,
            limit: 20,
            bodies: false,
            totals: true,
        }
    }

    /// Over all tenants: for the node's own work only.
    pub fn everywhere(kind: &'static Kind) -> Self {
        Self { tenant: None, ..Self::of(kind, Id::NIL) }
    }

    #[must_use]
    pub fn filter(mut self, column: &str, value: impl Into<Value>) -> Self {
        self.tests.push(Test::Is(column.into(), "=", value.into()));
        self
    }

    /// The value that a column is to have, if it is filtered by one.
    pub fn value_of(&self, column: &str) -> Option<&Value> {
        self.tests.iter().find_map(|test| match test {
            Test::Is(filtered, "=", value) if filtered == column => Some(value),
            _ => None,
        })
    }

    /// Drops the test of a column for one value.
    #[must_use]
    pub fn without(mut self, column: &str) -> Self {
        self.tests.retain(|test| !matches!(test, Test::Is(tested, "=", _) if tested == column));
        self
    }

    #[must_use]
    pub fn filter_ge(mut self, column: &str, value: impl Into<Value>) -> Self {
        self.tests.push(Test::Is(column.into(), ">=", value.into()));
        self
    }

    #[must_use]
    pub fn filter_le(mut self, column: &str, value: impl Into<Value>) -> Self {
        self.tests.push(Test::Is(column.into(), "<=", value.into()));
        self
    }

    #[must_use]
    pub fn is_null(mut self, column: &str) -> Self {
        self.tests.push(Test::IsNull(column.into(), true));
        self
    }

    #[must_use]
    pub fn is_not_null(mut self, column: &str) -> Self {
        self.tests.push(Test::IsNull(column.into(), false));
        self
    }

    #[must_use]
    pub fn any_of(mut self, column: &str, values: Vec<Value>) -> Self {
        self.tests.push(Test::AnyOf(column.into(), values));
        self
    }

    /// Records whose set holds the value; the set must be declared with `.column()`.
    #[must_use]
    pub fn contains(mut self, set: &Field, value: impl Into<Value>) -> Self {
        self.tests.push(Test::Contains(set.code, value.into()));
        self
    }

    /// Records whose column is the value, or whose set holds it. Of one tenant only.
    #[must_use]
    pub fn names(mut self, column: &str, set: &Field, value: impl Into<Value>) -> Self {
        self.tests.push(Test::Names(column.into(), set.code, value.into()));
        self
    }

    /// Records whose column refers to one that matches `others`, which are of another kind; order and limit of those are
    /// nothing to it. By itself it is counted from the kept counts of the column, if those are kept.
    #[must_use]
    pub fn within(mut self, column: &str, others: Self) -> Self {
        self.tests.push(Test::Within(column.into(), Box::new(others)));
        self
    }

    #[must_use]
    pub fn sort(mut self, column: &str, descending: bool) -> Self {
        self.sort = column.into();
        self.descending = descending;
        self
    }

    #[must_use]
    pub fn after(mut self, cursor: Option<Cursor>) -> Self {
        self.after = cursor;
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, 1_000);
        self
    }

    #[must_use]
    pub fn with_bodies(mut self) -> Self {
        self.bodies = true;
        self
    }

    /// Leaves the total out, which some filters make costly.
    #[must_use]
    pub fn without_total(mut self) -> Self {
        self.totals = false;
        self
    }

    pub(crate) fn wants_bodies(&self) -> bool {
        self.bodies
    }

    pub(crate) fn wants_total(&self) -> bool {
        self.totals
    }

    pub(crate) fn page_size(&self) -> usize {
        self.limit
    }

    pub(crate) fn tenant(&self) -> Option<Id> {
        self.tenant
    }

    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.after.as_ref()
    }

    /// All its matches, as far as they are kept.
    pub(crate) fn all(&self) -> Self {
        Self { after: None, limit: MOST_KEYS, bodies: false, ..self.clone() }
    }

    /// Whether what it finds depends on nothing but records of its kind, in one tenant. Lists without a total are for the
    /// node's own work, and asked for once.
    pub(crate) fn is_of_one_kind(&self) -> bool {
        let looks_elsewhere = self.tests.iter().any(|test| matches!(test, Test::Within(..)));
        self.totals && self.tenant.is_some() && !looks_elsewhere
    }

    /// Whether an index gives the order, and a kept counter the total.
    pub(crate) fn is_quick(&self) -> bool {
        self.bucket().is_some() && self.kind.is_ordered_by(&self.sort)
    }

    /// The same for what finds the same, and for nothing else.
    pub(crate) fn name(&self) -> Result<blake3::Hash> {
        let (sql, args) = self.select("key", &table_of(self.kind))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(sql.as_bytes());
        hasher.update(&crate::codec::encode(&args));
        Ok(hasher.finalize())
    }

    pub(crate) fn one_sql(&self, head: &str, table: &str) -> Result<String> {
        let sort = self.column(&self.sort)?;
        Ok(format!("SELECT {head}, {sort} FROM {table} WHERE key = ?1"))
    }

    pub(crate) fn sort_column(&self) -> &str {
        &self.sort
    }

    fn column(&self, name: &str) -> Result<String> {
        if name == "key" || name == "id" {
            return Ok("key".into());
        }
        if !self.kind.has_column(name) {
            return Err(Error::Malformed(format!("{} has no column {name}", self.kind.plural)));
        }
        Ok(format!("c_{name}"))
    }

    /// Itself; or where the order is kept by a sparse index, the part of the records with a value and the part without,
    /// in their order, as far as they come after the cursor.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let says_so = |test: &Test| match test {
            Test::Is(column, op, value) => *column == self.sort && (*op != "=" || !value.is_null()),
            Test::IsNull(column, _) | Test::AnyOf(column, _) => *column == self.sort,
            Test::Contains(..) | Test::Names(..) | Test::Within(..) => false,
        };
        if !self.kind.is_sparse(&self.sort) || self.tests.iter().any(says_so) {
            return vec![self.clone()];
        }
        let (with, without) =
            (self.clone().is_not_null(&self.sort), self.clone().is_null(&self.sort));
        let in_nulls = self.after.as_ref().map(|after| after.value.is_null());
        // NULL is the least value.
        match (self.descending, in_nulls) {
            (true, None | Some(false)) => vec![with, without.after(None)],
            (true, Some(true)) => vec![without],
            (false, None | Some(true)) => vec![without, with.after(None)],
            (false, Some(false)) => vec![with],
        }
    }

    /// The kept counter that answers this query's total, if one does.
    pub(crate) fn bucket(&self) -> Option<Bucket<'_>> {
        match self.tests.as_slice() {
            [] => Some(Bucket { column: "", value: Value::Text(String::new()), is_rest: false }),
            [Test::Is(column, "=", value)] if self.kind.counted.contains(&column.as_str()) => {
                let is_rest = *value == Value::Bool(false);
                let is_derived = self.kind.derived.iter().any(|derived| derived.name == column);
                let value = total_value(&flat(if is_rest { &Value::Bool(true) } else { value }));
                (!is_rest || is_derived).then_some(Bucket { column, value, is_rest })
            }
            _ => None,
        }
    }

    fn conditions(&self, table: &str, args: &mut Vec<Value>) -> Result<String> {
        let mut sql = String::from("1");
        if let Some(tenant) = self.tenant {
            args.push(Value::Id(tenant));
            // Few keys are looked up one by one; the planner would rather go through all records of the tenant.
            let hidden = if self.tests.iter().any(gives_keys) { "+" } else { "" };
            let _ = write!(sql, " AND {hidden}tenant = ?{}", args.len());
        }
        for test in &self.tests {
            match test {
                // A flag is written out: the planner can then use an index of the rows that have it.
                Test::Is(column, "=", Value::Bool(flag)) => {
                    let _ = write!(sql, " AND {} = {}", self.column(column)?, i32::from(*flag));
                }
                Test::Is(column, op, value) => {
                    args.push(value.clone());
                    let _ = write!(sql, " AND {} {op} ?{}", self.column(column)?, args.len());
                }
                Test::IsNull(column, is) => {
                    let not = if *is { "" } else { "NOT " };
                    let _ = write!(sql, " AND {} IS {not}NULL", self.column(column)?);
                }
                Test::AnyOf(column, values) => {
                    let first = args.len() + 1;
                    args.extend(values.iter().cloned());
                    let marks: Vec<String> =
                        (first..=args.len()).map(|i| format!("?{i}")).collect();
                    let _ = write!(sql, " AND {} IN ({})", self.column(column)?, marks.join(","));
                }
                Test::Contains(field, value) => {
                    args.extend([
                        Value::Int(i64::from(self.kind.code)),
                        Value::Int(i64::from(*field)),
                        value.clone(),
                    ]);
                    let n = args.len();
                    let (kind, field) = (n - 2, n - 1);
                    let held =
                        format!("e.kind = ?{kind} AND e.field = ?{field} AND e.value = ?{n}");
                    let _ = if let Some(tenant) = self.tenant {
                        args.push(Value::Id(tenant));
                        let n = args.len();
                        write!(
                            sql,
                            " AND {table}.key IN (SELECT e.key FROM element e WHERE {held} AND e.tenant = ?{n})"
                        )
                    } else {
                        write!(
                            sql,
                            " AND EXISTS (SELECT 1 FROM element e WHERE {held} AND e.tenant = {table}.tenant \
                             AND e.key = {table}.key)"
                        )
                    };
                }
                Test::Names(column, field, value) => {
                    let column = self.column(column)?;
                    let tenant = self.tenant.ok_or_else(|| {
                        Error::Internal("records of all tenants are named by no one value".into())
                    })?;
                    args.extend([
                        Value::Int(i64::from(self.kind.code)),
                        Value::Int(i64::from(*field)),
                        Value::Id(tenant),
                        value.clone(),
                    ]);
                    // Two look-ups in indexes: with OR, every record would be looked at.
                    let n = args.len();
                    let _ = write!(
                        sql,
                        " AND key IN (SELECT key FROM {table} WHERE tenant = ?{} AND {column} = ?{n} UNION \
                         SELECT e.key FROM element e WHERE e.kind = ?{} AND e.field = ?{} AND e.tenant = ?{} \
                         AND e.value = ?{n})",
                        n - 1,
                        n - 3,
                        n - 2,
                        n - 1
                    );
                }
                Test::Within(column, others) => {
                    let referring = format!("{table}.{}", self.column(column)?);
                    let _ = write!(sql, " AND {}", others.exists(&referring, args)?);
                }
            }
        }
        Ok(sql)
    }

    /// That there is a match with this key.
    fn exists(&self, key: &str, args: &mut Vec<Value>) -> Result<String> {
        let table = table_of(self.kind);
        let conditions = self.conditions(&table, args)?;
        Ok(format!("EXISTS (SELECT 1 FROM {table} WHERE {table}.key = {key} AND {conditions})"))
    }

    /// Counts what matches by each of the values that its column or set holds: (value, count) of those with any.
    pub(crate) fn group_sql(
        &self,
        table: &str,
        by: &Field,
        values: &[Value],
    ) -> Result<(String, Vec<Value>)> {
        let mut args = Vec::new();
        let conditions = self.conditions(table, &mut args)?;
        let first = args.len() + 1;
        args.extend(values.iter().cloned());
        let marks: Vec<String> = (first..=args.len()).map(|i| format!("?{i}")).collect();
        let marks = marks.join(",");
        if by.merge != Merge::Set {
            let column = self.column(by.name)?;
            let sql = format!(
                "SELECT {column}, count(*) FROM {table} WHERE {conditions} AND {column} IN ({marks}) GROUP BY {column}"
            );
            return Ok((sql, args));
        }
        args.extend([Value::Int(i64::from(self.kind.code)), Value::Int(i64::from(by.code))]);
        let n = args.len();
        let mut place = format!("m.kind = ?{} AND m.field = ?{n}", n - 1);
        if let Some(tenant) = self.tenant {
            args.push(Value::Id(tenant));
            let _ = write!(place, " AND m.tenant = ?{}", n + 1);
        }
        let sql = format!(
            "SELECT m.value, count(*) FROM element m WHERE {place} AND m.value IN ({marks}) AND EXISTS \
             (SELECT 1 FROM {table} WHERE {table}.key = m.key AND {conditions}) GROUP BY m.value"
        );
        Ok((sql, args))
    }

    pub(crate) fn select(&self, head: &str, table: &str) -> Result<(String, Vec<Value>)> {
        let mut args = Vec::new();
        let mut sql = self.conditions(table, &mut args)?;
        let sort = self.column(&self.sort)?;
        let (order, than) = if self.descending { ("DESC", "<") } else { ("ASC", ">") };
        if let Some(after) = &self.after {
            args.extend([after.value.clone(), Value::Id(after.key)]);
            let n = args.len();
            if sort == "key" {
                let _ = write!(sql, " AND key {than} ?{n} AND ?{} IS ?{}", n - 1, n - 1);
            } else if after.value.is_null() {
                let more = if self.descending { "" } else { &format!(" OR {sort} IS NOT NULL") };
                let _ = write!(
                    sql,
                    " AND (({sort} IS NULL AND key {than} ?{n} AND ?{} IS NULL){more})",
                    n - 1
                );
            } else {
                let nulls = if self.descending { &format!(" OR {sort} IS NULL") } else { "" };
                let _ = write!(sql, " AND (({sort}, key) {than} (?{}, ?{n}){nulls})", n - 1);
            }
        }
        let by = if sort == "key" {
            format!("key {order}")
        } else {
            format!("{sort} {order}, key {order}")
        };
        let limit = self.limit + 1;
        Ok((
            format!("SELECT {head}, {sort} FROM {table} WHERE {sql} ORDER BY {by} LIMIT {limit}"),
            args,
        ))
    }

    pub(crate) fn count_sql(&self, table: &str) -> Result<(String, Vec<Value>)> {
        let mut args = Vec::new();
        if let [Test::Contains(field, value)] = self.tests.as_slice()
            && let Some(tenant) = self.tenant
        {
            args.extend([Value::Int(i64::from(self.kind.code)), Value::Int(i64::from(*field))]);
            args.extend([Value::Id(tenant), value.clone()]);
            let sql = "SELECT count(*) FROM element WHERE kind = ?1 AND field = ?2 AND tenant = ?3 AND value = ?4";
            return Ok((sql.into(), args));
        }
        if let [Test::Within(column, others)] = self.tests.as_slice()
            && let Some(tenant) = self.tenant
            && self.kind.counted.contains(&column.as_str())
        {
            args.extend([Value::Int(i64::from(self.kind.code)), Value::Id(tenant)]);
            args.push(Value::from(column.as_str()));
            let exists = others.exists("total.value", &mut args)?;
            let sql = format!(
                "SELECT coalesce(sum(total.n), 0) FROM total WHERE total.kind = ?1 AND total.tenant = ?2 \
                 AND total.col = ?3 AND total.n > 0 AND {exists}"
            );
            return Ok((sql, args));
        }
        let conditions = self.conditions(table, &mut args)?;
        Ok((format!("SELECT count(*) FROM {table} WHERE {conditions}"), args))
    }
}

/// Whether a test names the keys that can match.
fn gives_keys(test: &Test) -> bool {
    match test {
        Test::Contains(..) | Test::Names(..) => true,
        Test::AnyOf(column, _) => column == "key" || column == "id",
        Test::Is(..) | Test::IsNull(..) | Test::Within(..) => false,
    }
}

/// As SQLite stores it: flags are integers.
fn flat(value: &Value) -> Value {
    if let Value::Bool(flag) = value { Value::Int(i64::from(*flag)) } else { value.clone() }
}
