//! A small DynamoDB by JSON 1.0: tables with a partition key and perhaps a sort key, items, conditions, queries.
//!
//! No indexes, streams, transactions, PartiQL, nor the parameters that expressions replaced in 2014: each is refused by
//! name. What is there answers with DynamoDB's own words (error texts as its public service and DynamoDB local give
//! them).

mod evaluate;
mod expression;
mod items;
mod number;
mod parser;
mod query;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderValue;
use http::request::Parts;
use serde_json::{Map, Value as Json, json};

use self::table::{KeyAttribute, Schema, Store, Table, arn_of};
use super::errors::{ApiError, Dialect};
use super::http_types::{About, Caller, Identity, Request, Response, Service, Verification, read_body, respond};
use super::rpc;
use super::upstream;
use super::world::World;
use crate::model::plan::{Backend, Plan};

const DIALECT: Dialect = Dialect::Json { version: "1.0" };

/// Longest body of a request, bytes (Amazon DynamoDB Developer Guide, "Quotas": 16 MB).
const MAX_BODY: usize = upstream::MAX_BODY;

/// Names on a page of ListTables.
const MAX_PAGE: u64 = 100;

/// Operations of AWS that this one does not have.
const NOT_HERE: &[&str] = &[
    "BatchExecuteStatement",
    "CreateBackup",
    "CreateGlobalTable",
    "DeleteBackup",
    "DeleteResourcePolicy",
    "DescribeBackup",
    "DescribeContinuousBackups",
    "DescribeContributorInsights",
    "DescribeExport",
    "DescribeGlobalTable",
    "DescribeGlobalTableSettings",
    "DescribeImport",
    "DescribeKinesisStreamingDestination",
    "DescribeLimits",
    "DescribeTableReplicaAutoScaling",
    "DescribeTimeToLive",
    "DisableKinesisStreamingDestination",
    "EnableKinesisStreamingDestination",
    "ExecuteStatement",
    "ExecuteTransaction",
    "ExportTableToPointInTime",
    "GetResourcePolicy",
    "ImportTable",
    "ListBackups",
    "ListContributorInsights",
    "ListExports",
    "ListGlobalTables",
    "ListImports",
    "ListTagsOfResource",
    "PutResourcePolicy",
    "RestoreTableFromBackup",
    "RestoreTableToPointInTime",
    "TagResource",
    "TransactGetItems",
    "TransactWriteItems",
    "UntagResource",
    "UpdateContinuousBackups",
    "UpdateContributorInsights",
    "UpdateGlobalTable",
    "UpdateGlobalTableSettings",
    "UpdateKinesisStreamingDestination",
    "UpdateTable",
    "UpdateTableReplicaAutoScaling",
    "UpdateTimeToLive",
];

/// The service and its tables.
pub(super) struct DynamoDb {
    world: Arc<World>,
    store: Store,
}

/// Account and region.
type Place = (String, String);
type Object = Map<String, Json>;

/// Why a request failed.
#[derive(Debug)]
struct Failure {
    error: ApiError,
    /// `ReturnValuesOnConditionCheckFailure`: the item as it is.
    item: Option<Box<Object>>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure { error, item: None }
    }
}

impl DynamoDb {
    pub(super) fn new(world: Arc<World>) -> DynamoDb {
        DynamoDb { world, store: Store::default() }
    }
}

impl Service for DynamoDb {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: Some("dynamodb"), anonymous: false, max_body: MAX_BODY }
    }

    fn dialect(&self, _head: &Parts) -> Dialect {
        DIALECT
    }

    fn load(&self, plan: &Plan) -> Result<(), String> {
        for service in plan.services.iter().filter(|s| s.name == "dynamodb" && s.backend == Backend::Builtin) {
            let place = (service.account.clone(), service.region.clone());
            for planned in &service.contents.tables {
                self.load_table(&place, planned).map_err(|e| format!("table {}: {}", planned.name, e.message))?;
            }
        }
        Ok(())
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let about = Arc::clone(&request.about);
            let action = rpc::json_action(&request.head, "DynamoDB_20120810").unwrap_or("").to_owned();
            let caller = request.caller(DIALECT).cloned();
            let body = read_body(request.body, MAX_BODY).await.ok().flatten().unwrap_or_default();
            let result = match (rpc::json_body(&body), &caller) {
                (Ok(input), Ok(caller)) => Call { service: self, about: &about, caller, input: &input }.run(&action),
                (Err(error), _) => Err(error.into()),
                (_, Err(error)) => Err(error.clone().into()),
            };
            match result {
                Ok(output) => answer(200, &Json::Object(output)),
                Err(Failure { error, item }) => {
                    let shape = error.shape.as_deref().unwrap_or(&error.code);
                    // As `upstream::denied` and the front door have it: only modelled errors say "message".
                    let key = if shape.starts_with("com.amazon") { "message" } else { "Message" };
                    let mut body = json!({ "__type": shape, key: error.message });
                    if let Some(item) = item {
                        body["Item"] = Json::Object(*item);
                    }
                    answer(error.status, &body)
                }
            }
        })
    }
}

struct Call<'a> {
    service: &'a DynamoDb,
    about: &'a About,
    caller: &'a Caller,
    input: &'a Object,
}

impl Call<'_> {
    fn run(&self, action: &str) -> Result<Object, Failure> {
        match action {
            "CreateTable" => Ok(self.create_table()?),
            "DescribeTable" => Ok(self.describe_table()?),
            "ListTables" => Ok(self.list_tables()?),
            "DeleteTable" => Ok(self.delete_table()?),
            "DescribeEndpoints" => Ok(self.describe_endpoints()?),
            "PutItem" => self.put_item(),
            "GetItem" => Ok(self.get_item()?),
            "DeleteItem" => self.delete_item(),
            "UpdateItem" => self.update_item(),
            "BatchWriteItem" => Ok(self.batch_write()?),
            "BatchGetItem" => Ok(self.batch_get()?),
            "Query" => Ok(self.query()?),
            "Scan" => Ok(self.scan()?),
            other if NOT_HERE.contains(&other) => {
                let message = format!("{other} is not in this version of vpclab");
                let error = ApiError::bad("UnknownOperationException", message);
                Err(error.shape("com.amazon.coral.service#UnknownOperationException").into())
            }
            other => Err(rpc::unknown_action(DIALECT, other, "2012-08-10").into()),
        }
    }

    fn create_table(&self) -> Result<Object, ApiError> {
        self.only(&[
            "TableName",
            "AttributeDefinitions",
            "KeySchema",
            "BillingMode",
            "ProvisionedThroughput",
            "DeletionProtectionEnabled",
            "TableClass",
            "StreamSpecification",
            "SSESpecification",
            "Tags",
        ])?;
        let place = self.place();
        let name = self.table_name()?;
        self.allow("CreateTable", &arn_of(&place, &name))?;
        for (key, refused) in [
            ("DeletionProtectionEnabled", self.input.get("DeletionProtectionEnabled") == Some(&true.into())),
            ("TableClass", self.text("TableClass").is_some_and(|class| class != "STANDARD")),
            ("StreamSpecification", self.enabled("StreamSpecification", "StreamEnabled")),
            ("SSESpecification", self.enabled("SSESpecification", "Enabled")),
            ("Tags", self.input.get("Tags").and_then(Json::as_array).is_some_and(|tags| !tags.is_empty())),
        ] {
            if refused {
                return Err(not_here(key));
            }
        }
        let schema = self.schema()?;
        let provisioned = self.throughput()?;
        let mut tables = self.service.store.lock();
        if tables.find(&place, &name).is_some() {
            return Err(modelled("ResourceInUseException", &format!("Table already exists: {name}")));
        }
        let id = self.about.world.ids.uuid();
        let table = Table::new(&name, &place, id, self.about.time.0, schema, provisioned);
        let described = table.describe("CREATING");
        tables.add(&place, table).map_err(|_| {
            modelled(
                "LimitExceededException",
                "Subscriber limit exceeded: There is a limit of 2500 tables per subscriber",
            )
        })?;
        Ok(object([("TableDescription", described)]))
    }

    fn describe_table(&self) -> Result<Object, ApiError> {
        self.only(&["TableName"])?;
        let (place, name) = self.target("DescribeTable")?;
        let mut tables = self.service.store.lock();
        let (table, _) = tables.find(&place, &name).ok_or_else(|| no_such_table(Some(&name)))?;
        Ok(object([("Table", table.describe("ACTIVE"))]))
    }

    fn list_tables(&self) -> Result<Object, ApiError> {
        self.only(&["ExclusiveStartTableName", "Limit"])?;
        let place = self.place();
        self.allow("ListTables", &arn_of(&place, "*"))?;
        let limit = self.limit(MAX_PAGE)?.unwrap_or(MAX_PAGE) as usize;
        let tables = self.service.store.lock();
        let mut names = tables.names(&place, self.text("ExclusiveStartTableName"));
        let page: Vec<&String> = names.by_ref().take(limit).collect();
        let last = names.next().and(page.last()).map(|last| Json::from(last.as_str()));
        let mut out = object([("TableNames", page.into_iter().cloned().collect())]);
        out.extend(last.map(|last| ("LastEvaluatedTableName".to_owned(), last)));
        Ok(out)
    }

    fn delete_table(&self) -> Result<Object, ApiError> {
        self.only(&["TableName"])?;
        let (place, name) = self.target("DeleteTable")?;
        let table = self.service.store.lock().remove(&place, &name).ok_or_else(|| no_such_table(Some(&name)))?;
        Ok(object([("TableDescription", table.describe("DELETING"))]))
    }

    fn describe_endpoints(&self) -> Result<Object, ApiError> {
        self.allow("DescribeEndpoints", "*")?;
        let address = format!("dynamodb.{}.amazonaws.com", self.about.gate.region);
        Ok(object([("Endpoints", json!([{ "Address": address, "CachePeriodInMinutes": 1_440 }]))]))
    }

    /// `KeySchema` and `AttributeDefinitions`.
    fn schema(&self) -> Result<Schema, ApiError> {
        let list = |key: &str, field: &str| match self.input.get(key).and_then(Json::as_array) {
            Some(list) if list.is_empty() => Err(validation(&format!(
                "Value '[]' at '{field}' failed to satisfy constraint: Member must have length greater than or equal to 1"
            ))),
            Some(list) => Ok(list),
            None => Err(missing(field)),
        };
        let word = |entry: &Json, key: &str| entry.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
        let mut defined: Vec<(String, &'static str)> = Vec::new();
        for (at, entry) in list("AttributeDefinitions", "attributeDefinitions")?.iter().enumerate() {
            let (name, kind) = (word(entry, "AttributeName"), word(entry, "AttributeType"));
            let Some(kind) = ["S", "N", "B"].into_iter().find(|k| *k == kind) else {
                return Err(validation(&format!(
                    "Value '{kind}' at 'attributeDefinitions.{}.member.attributeType' failed to satisfy constraint: \
                     Member must satisfy enum value set: [B, N, S]",
                    at + 1
                )));
            };
            if defined.iter().any(|(n, _)| *n == name) {
                return Err(invalid_parameter(&format!("Duplicate AttributeName in AttributeDefinitions: {name}")));
            }
            defined.push((name, kind));
        }
        let keys = list("KeySchema", "keySchema")?;
        if keys.len() > 2 {
            return Err(validation(
                "Value at 'keySchema' failed to satisfy constraint: Member must have length less than or equal to 2",
            ));
        }
        let mut found = Vec::new();
        for (entry, role, place) in
            keys.iter().zip([("HASH", "first"), ("RANGE", "second")]).map(|(e, (r, p))| (e, r, p))
        {
            let (name, given) = (word(entry, "AttributeName"), word(entry, "KeyType"));
            if given != role {
                return Err(invalid(&format!(
                    "Invalid KeySchema: The {place} KeySchemaElement is not a {role} key type"
                )));
            }
            if !(1..=255).contains(&name.len()) {
                return Err(validation(&format!(
                    "Value '{name}' at 'keySchema.{}.member.attributeName' failed to satisfy constraint: Member must \
                     have length between 1 and 255",
                    found.len() + 1
                )));
            }
            let Some((_, kind)) = defined.iter().find(|(n, _)| *n == name) else {
                let names: Vec<&str> = defined.iter().map(|(n, _)| n.as_str()).collect();
                return Err(invalid_parameter(&format!(
                    "Some index key attributes are not defined in AttributeDefinitions. Keys: [{name}], \
                     AttributeDefinitions: [{}]",
                    names.join(", ")
                )));
            };
            found.push(KeyAttribute { name, kind });
        }
        let mut found = found.into_iter();
        let (partition, sort) = (found.next().ok_or_else(|| missing("keySchema"))?, found.next());
        if sort.as_ref().is_some_and(|s| s.name == partition.name) {
            return Err(invalid(
                "Invalid KeySchema: Both the Hash Key and the Range Key element in the KeySchema have the same name",
            ));
        }
        let schema = Schema { partition, sort };
        if defined.len() > schema.attributes().count() {
            return Err(invalid_parameter(
                "Number of attributes in KeySchema does not exactly match number of attributes defined in \
                 AttributeDefinitions",
            ));
        }
        Ok(schema)
    }

    /// Read and write units; `None`: on demand.
    fn throughput(&self) -> Result<Option<(u64, u64)>, ApiError> {
        let given = self.input.get("ProvisionedThroughput").filter(|v| !v.is_null());
        let units = |key: &str| given.and_then(|g| g.get(key)).and_then(Json::as_u64).filter(|n| *n > 0);
        match (self.text("BillingMode"), given) {
            (Some("PAY_PER_REQUEST"), None) => Ok(None),
            (Some("PAY_PER_REQUEST"), Some(_)) => Err(invalid_parameter(
                "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST",
            )),
            (None | Some("PROVISIONED"), _) => {
                units("ReadCapacityUnits").zip(units("WriteCapacityUnits")).map(Some).ok_or_else(|| {
                    invalid_parameter(
                        "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED",
                    )
                })
            }
            (Some(other), _) => Err(validation(&format!(
                "Value '{other}' at 'billingMode' failed to satisfy constraint: Member must satisfy enum value set: \
                 [PROVISIONED, PAY_PER_REQUEST]"
            ))),
        }
    }

    /// The table that the request names, once the policies allow the action on it.
    fn target(&self, action: &str) -> Result<(Place, String), ApiError> {
        let name = self.table_name()?;
        self.table_allowed(action, &name)
    }

    /// As [`Call::target`], for a table of this name.
    fn table_allowed(&self, action: &str, name: &str) -> Result<(Place, String), ApiError> {
        let place = self.place();
        self.allow(action, &arn_of(&place, name))?;
        Ok((place, name.to_owned()))
    }

    /// `TableName`: a name, or the ARN of a table here.
    fn table_name(&self) -> Result<String, ApiError> {
        let given = self.text("TableName").ok_or_else(|| missing("tableName"))?;
        self.checked_name(given)
    }

    fn checked_name(&self, given: &str) -> Result<String, ApiError> {
        let place = self.place();
        let name = match rpc::parse_arn(given, "dynamodb") {
            None => given,
            Some((region, account, rest)) => {
                let name = rest
                    .strip_prefix("table/")
                    .filter(|_| region == place.1)
                    .ok_or_else(|| invalid(&format!("Invalid table ARN for region {}: {given}", place.1)))?;
                if account != place.0 {
                    let message = format!(
                        "User: {} is not authorized to perform this operation on resource: {given} because no \
                         resource-based policy allows it",
                        self.caller.arn
                    );
                    return Err(upstream::denied(DIALECT, message));
                }
                name
            }
        };
        check_table_name(name)?;
        Ok(name.to_owned())
    }

    fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.about
            .judge(Some(self.caller), &format!("dynamodb:{action}"), resource, Identity::Asked)
            .map_err(|message| upstream::denied(DIALECT, message))
    }

    fn place(&self) -> Place {
        (self.caller.account().to_owned(), self.about.gate.region.clone())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.input.get(name).and_then(Json::as_str)
    }

    fn enabled(&self, name: &str, flag: &str) -> bool {
        self.input.get(name).and_then(|v| v.get(flag)) == Some(&true.into())
    }

    /// `Limit`: at least 1, at most `most`.
    fn limit(&self, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(given) = self.input.get("Limit").filter(|v| !v.is_null()) else { return Ok(None) };
        match given.as_u64() {
            Some(limit) if limit > most => Err(validation(&format!(
                "Value '{given}' at 'limit' failed to satisfy constraint: Member must have value less than or equal to \
                 {most}"
            ))),
            Some(limit) if limit > 0 => Ok(Some(limit)),
            _ => Err(validation(&format!(
                "Value '{given}' at 'limit' failed to satisfy constraint: Member must have value greater than or equal \
                 to 1"
            ))),
        }
    }

    /// A word of a closed list; `default` if it is absent.
    fn one_of(&self, name: &str, all: &[&'static str], default: &'static str) -> Result<&'static str, ApiError> {
        let Some(given) = self.text(name) else { return Ok(default) };
        all.iter().find(|word| **word == given).copied().ok_or_else(|| {
            validation(&format!(
                "Value '{given}' at '{}' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
                field(name),
                all.join(", ")
            ))
        })
    }

    /// Refuses parameters that are not known here: ignored, they would change what the request means.
    fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let other = self.input.iter().find(|(key, value)| {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            !empty && !known.contains(&key.as_str())
        });
        other.map_or(Ok(()), |(key, _)| Err(not_here(key)))
    }
}

impl DynamoDb {
    /// Makes a table of the plan, unless it is there.
    fn load_table(&self, place: &Place, planned: &crate::model::plan::TablePlan) -> Result<(), ApiError> {
        check_table_name(&planned.name)?;
        let mut tables = self.store.lock();
        if tables.find(place, &planned.name).is_some() {
            return Ok(());
        }
        let attribute = |(name, kind): &(String, char)| KeyAttribute {
            name: name.clone(),
            kind: match kind {
                'N' => "N",
                'B' => "B",
                _ => "S",
            },
        };
        let schema = Schema { partition: attribute(&planned.partition), sort: planned.sort.as_ref().map(attribute) };
        let items = planned.items.iter().map(|item| {
            let item = value::read_item(item)?;
            Ok((schema.key_of_item(&item)?, item))
        });
        let items: Vec<_> = items.collect::<Result<_, ApiError>>()?;
        let id = crate::base::ids::token36(&["table", &place.0, &place.1, &planned.name], 32);
        let table = Table::new(&planned.name, place, id, self.world.unix().0, schema, None);
        tables.add(place, table)?;
        if let Some((table, held)) = tables.find(place, &planned.name) {
            for (key, item) in items {
                table.put(held, key, item)?;
            }
        }
        Ok(())
    }
}

/// An answer with the checksum that older SDKs verify.
fn answer(status: u16, body: &Json) -> Response {
    let body = body.to_string();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, body.as_bytes());
    let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, "application/x-amz-json-1.0", body);
    response.headers_mut().insert("x-amz-crc32", HeaderValue::from(crc));
    response
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Object {
    entries.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}

fn check_table_name(name: &str) -> Result<(), ApiError> {
    if !(3..=255).contains(&name.len()) {
        return Err(invalid("TableName must be at least 3 characters long and at most 255 characters long"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(validation(&format!(
            "Value '{name}' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression \
             pattern: [a-zA-Z0-9_.-]+"
        )));
    }
    Ok(())
}

/// `TableName` is `tableName` in errors.
fn field(name: &str) -> String {
    let mut field = name.to_owned();
    field[..1].make_ascii_lowercase();
    field
}

fn invalid(message: &str) -> ApiError {
    ApiError::bad("ValidationException", message).shape("com.amazon.coral.validate#ValidationException")
}

fn invalid_parameter(message: &str) -> ApiError {
    invalid(&format!("One or more parameter values were invalid: {message}"))
}

fn validation(message: &str) -> ApiError {
    invalid(&format!("1 validation error detected: {message}"))
}

fn missing(field: &str) -> ApiError {
    validation(&format!("Value null at '{field}' failed to satisfy constraint: Member must not be null"))
}

fn not_here(what: &str) -> ApiError {
    invalid(&format!("{what} is not in this version of vpclab"))
}

/// An error of the service's model.
fn modelled(code: &str, message: &str) -> ApiError {
    ApiError::bad(code, message).shape(format!("com.amazonaws.dynamodb.v20120810#{code}"))
}

/// Operations on tables name it, those on items do not.
fn no_such_table(name: Option<&str>) -> ApiError {
    let which = name.map_or_else(String::new, |name| format!(": Table: {name} not found"));
    modelled("ResourceNotFoundException", &format!("Requested resource not found{which}"))
}
