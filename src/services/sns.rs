//! SNS by the query protocol: topics, and subscriptions of the built-in SQS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::errors::{ApiError, Dialect};
use super::http_types::{About, Caller, Identity, Request, Response, Service, Verification, full_request, read_body};
use super::rpc::{self, Params};
use super::sqs::Sqs;
use super::upstream;
use super::xml::Xml;
use crate::base::UnixTime;
use crate::model::plan::{Backend, Plan};

const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";
const DIALECT: Dialect = Dialect::Query { namespace: NAMESPACE };

/// Greatest size of a message with its attributes, bytes (SNS API Reference, Publish).
const MAX_MESSAGE: usize = 262_144;
/// Topics of a lab (Amazon SNS quotas: 100,000 of an account).
const MAX_TOPICS: usize = 100_000;
/// Subscriptions of a topic. AWS's quota is 12,500,000; a lab has no use for so many queues.
const MAX_SUBSCRIPTIONS: usize = 10_000;
/// Tags of a topic (Amazon SNS quotas).
const MAX_TAGS: usize = 50;
/// Longest value of a topic's attribute, bytes: that of a policy (Amazon SNS quotas).
const MAX_ATTRIBUTE: usize = 30_720;
/// Entries of one page of a list (SNS API Reference, ListTopics).
const PAGE: usize = 100;

/// The service, its topics, and the queues that it delivers to.
pub(super) struct Sns {
    sqs: Arc<Sqs>,
    topics: Mutex<BTreeMap<String, Topic>>,
}

#[derive(Debug, Default)]
struct Topic {
    /// As set.
    attributes: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    /// By ARN.
    subscriptions: BTreeMap<String, Subscription>,
    deleted_subscriptions: usize,
}

#[derive(Clone, Debug)]
struct Subscription {
    /// ARN of a queue.
    endpoint: String,
    owner: String,
    raw: bool,
}

impl Sns {
    pub(super) fn new(sqs: Arc<Sqs>) -> Sns {
        Sns { sqs, topics: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Sns {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: Some("sns"), anonymous: false, max_body: rpc::MAX_BODY }
    }

    fn dialect(&self, _head: &Parts) -> Dialect {
        DIALECT
    }

    fn load(&self, plan: &Plan) -> Result<(), String> {
        for service in plan.services.iter().filter(|s| s.name == "sns" && s.backend == Backend::Builtin) {
            for name in &service.contents.topics {
                check_name(name).map_err(|e| format!("topic {name}: {}", e.message))?;
                let arn = format!("arn:aws:sns:{}:{}:{name}", service.region, service.account);
                self.lock().entry(arn).or_default();
            }
        }
        Ok(())
    }

    fn handle(&self, mut request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let about = request.about.clone();
            let body = std::mem::replace(&mut request.body, full_request(Default::default()));
            let body = read_body(body, rpc::MAX_BODY).await.ok().flatten().unwrap_or_default();
            let params = Params::of(&request.head, &body);
            let result = request
                .caller(DIALECT)
                .and_then(|caller| Call { sns: self, about: &about, caller, params: &params }.run());
            result.unwrap_or_else(|error| error.render(DIALECT, &about.request_id))
        })
    }
}

struct Call<'a> {
    sns: &'a Sns,
    about: &'a About,
    caller: &'a Caller,
    params: &'a Params,
}

impl Call<'_> {
    fn run(&self) -> Result<Response, ApiError> {
        let action = self.params.text("Action");
        match action.as_str() {
            "CreateTopic" => self.create_topic(),
            "DeleteTopic" => self.delete_topic(),
            "ListTopics" => self.list_topics(),
            "GetTopicAttributes" => self.get_topic_attributes(),
            "SetTopicAttributes" => self.set_topic_attributes(),
            "Publish" => self.publish(),
            "PublishBatch" => self.publish_batch(),
            "Subscribe" => self.subscribe(),
            "Unsubscribe" => self.unsubscribe(),
            "ListSubscriptions" => {
                self.allow("ListSubscriptions", "*")?;
                let own = self.own_prefix();
                let all = self.sns.lock();
                let found = all.iter().filter(|(arn, _)| arn.starts_with(&own)).flat_map(|(arn, t)| entries(arn, t));
                let found = found.collect();
                drop(all);
                self.subscriptions(&action, found)
            }
            "ListSubscriptionsByTopic" => {
                let found = self.with_topic("ListSubscriptionsByTopic", |arn, t| Ok(entries(arn, t).collect()))?;
                self.subscriptions(&action, found)
            }
            "GetSubscriptionAttributes" => self.get_subscription_attributes(),
            "SetSubscriptionAttributes" => self.set_subscription_attributes(),
            "TagResource" => {
                let tags = self.params.list("Tags.member");
                let tags: Vec<_> = tags.iter().map(|t| (t.text("Key"), t.text("Value"))).collect();
                self.with_tags("TagResource", |own| {
                    let mut all = own.clone();
                    all.extend(tags);
                    check_tags(&all)?;
                    *own = all;
                    Ok(())
                })?;
                Ok(self.reply(&action, |_| {}))
            }
            "UntagResource" => {
                let keys = self.params.values("TagKeys.member");
                self.with_tags("UntagResource", |own| {
                    own.retain(|k, _| !keys.contains(k));
                    Ok(())
                })?;
                Ok(self.reply(&action, |_| {}))
            }
            "ListTagsForResource" => {
                let tags = self.with_tags("ListTagsForResource", |own| Ok(own.clone()))?;
                Ok(self.reply(&action, |xml| {
                    xml.open("Tags");
                    for (key, value) in &tags {
                        xml.open("member").leaf("Key", key).leaf("Value", value).close("member");
                    }
                    xml.close("Tags");
                }))
            }
            "" => Err(ApiError::bad("MissingAction", "The request must contain the parameter Action.")),
            _ => Err(rpc::unknown_action(DIALECT, &action, &self.params.text("Version"))),
        }
    }

    fn create_topic(&self) -> Result<Response, ApiError> {
        let name = self.required("Name")?;
        let arn = format!("{}{name}", self.own_prefix());
        self.allow("CreateTopic", &arn)?;
        check_name(name)?;
        let mut attributes = BTreeMap::new();
        for entry in self.params.list("Attributes.entry") {
            let (key, value) = (entry.text("key"), entry.text("value"));
            check_topic_attribute(&key, &value)?;
            attributes.insert(key, value);
        }
        let tags = self.params.list("Tags.member");
        let tags: BTreeMap<_, _> = tags.iter().map(|t| (t.text("Key"), t.text("Value"))).collect();
        check_tags(&tags)?;
        let mut topics = self.sns.lock();
        if let Some(existing) = topics.get(&arn) {
            if attributes.iter().any(|(k, v)| existing.attributes.get(k) != Some(v)) {
                return Err(invalid("Attributes", "Topic already exists with different attributes"));
            }
            if !tags.is_empty() && tags != existing.tags {
                return Err(invalid("Tags", "Topic already exists with different tags"));
            }
        } else if topics.len() >= MAX_TOPICS {
            return Err(ApiError::bad("TopicLimitExceeded", "Topic limit exceeded").status(403));
        } else {
            topics.insert(arn.clone(), Topic { attributes, tags, ..Topic::default() });
        }
        drop(topics);
        Ok(self.reply("CreateTopic", |xml| {
            xml.leaf("TopicArn", &arn);
        }))
    }

    fn delete_topic(&self) -> Result<Response, ApiError> {
        let arn = self.required("TopicArn")?;
        parse_topic(arn)?;
        self.allow("DeleteTopic", arn)?;
        // Deleting what is not there is no error.
        self.sns.lock().remove(arn);
        Ok(self.nothing("DeleteTopic"))
    }

    fn list_topics(&self) -> Result<Response, ApiError> {
        self.allow("ListTopics", "*")?;
        let own = self.own_prefix();
        let all: Vec<String> = self.sns.lock().keys().filter(|arn| arn.starts_with(&own)).cloned().collect();
        let (shown, next) = self.page(all)?;
        Ok(self.reply("ListTopics", |xml| {
            xml.open("Topics");
            for arn in &shown {
                xml.open("member").leaf("TopicArn", arn).close("member");
            }
            xml.close("Topics");
            if let Some(next) = &next {
                xml.leaf("NextToken", next);
            }
        }))
    }

    fn get_topic_attributes(&self) -> Result<Response, ApiError> {
        let all = self.with_topic("GetTopicAttributes", |arn, topic| {
            let owner = parse_topic(arn)?.1.to_owned();
            let mut all: BTreeMap<String, String> = topic.attributes.clone();
            let policy = default_policy(arn, &owner);
            for (name, value) in [
                ("TopicArn", arn.to_owned()),
                ("Owner", owner),
                ("SubscriptionsConfirmed", topic.subscriptions.len().to_string()),
                ("SubscriptionsPending", "0".into()),
                ("SubscriptionsDeleted", topic.deleted_subscriptions.to_string()),
                ("Policy", policy),
                ("EffectiveDeliveryPolicy", DELIVERY_POLICY.into()),
            ] {
                all.insert(name.into(), value);
            }
            all.entry("DisplayName".into()).or_default();
            Ok(all)
        })?;
        Ok(self.reply("GetTopicAttributes", |xml| write_attributes(xml, &all)))
    }

    fn set_topic_attributes(&self) -> Result<Response, ApiError> {
        let name = self.required("AttributeName")?;
        let value = self.params.text("AttributeValue");
        check_topic_attribute(name, &value)?;
        self.with_topic("SetTopicAttributes", |_, topic| {
            topic.attributes.insert(name.to_owned(), value);
            Ok(())
        })?;
        Ok(self.nothing("SetTopicAttributes"))
    }

    fn publish(&self) -> Result<Response, ApiError> {
        if self.params.get("PhoneNumber").is_some() {
            return Err(invalid("PhoneNumber", "vpclab delivers to topics only"));
        }
        let arn = self.params.get("TopicArn").or(self.params.get("TargetArn"));
        let arn = arn.ok_or_else(|| invalid("TopicArn or TargetArn", "no value for required parameter"))?;
        let deliveries = self.deliveries(arn)?;
        let id = self.send(arn, self.params, &deliveries)?;
        Ok(self.reply("Publish", |xml| {
            xml.leaf("MessageId", &id);
        }))
    }

    fn publish_batch(&self) -> Result<Response, ApiError> {
        let arn = self.required("TopicArn")?;
        let deliveries = self.deliveries(arn)?;
        let entries = self.params.list("PublishBatchRequestEntries.member");
        if entries.is_empty() {
            return Err(ApiError::bad("EmptyBatchRequest", "The batch request doesn't contain any entries."));
        }
        if entries.len() > 10 {
            return Err(ApiError::bad(
                "TooManyEntriesInBatchRequest",
                "The batch request contains more entries than \
                                                                      permissible.",
            ));
        }
        let mut ids: Vec<String> = entries.iter().map(|e| e.text("Id")).collect();
        ids.sort();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ApiError::bad(
                "BatchEntryIdsNotDistinct",
                "Two or more batch entries in the request have the \
                                                                  same Id.",
            ));
        }
        let results: Vec<(String, Result<String, ApiError>)> =
            entries.iter().map(|e| (e.text("Id"), self.send(arn, e, &deliveries))).collect();
        Ok(self.reply("PublishBatch", |xml| {
            xml.open("Successful");
            for (id, result) in &results {
                if let Ok(message) = result {
                    xml.open("member").leaf("Id", id).leaf("MessageId", message).close("member");
                }
            }
            xml.close("Successful").open("Failed");
            for (id, result) in &results {
                if let Err(error) = result {
                    xml.open("member").leaf("Id", id).leaf("Code", &error.code);
                    xml.leaf("Message", &error.message).leaf("SenderFault", "true").close("member");
                }
            }
            xml.close("Failed");
        }))
    }

    fn deliveries(&self, arn: &str) -> Result<Vec<(String, Subscription)>, ApiError> {
        parse_topic(arn)?;
        self.allow("Publish", arn)?;
        self.own(arn)?;
        let topics = self.sns.lock();
        let topic = topics.get(arn).ok_or_else(no_topic)?;
        Ok(topic.subscriptions.iter().map(|(arn, s)| (arn.clone(), s.clone())).collect())
    }

    /// Delivers one message; its id.
    fn send(&self, topic: &str, from: &Params, to: &[(String, Subscription)]) -> Result<String, ApiError> {
        let text = from.get("Message").filter(|m| !m.is_empty()).ok_or_else(|| invalid("Message", "Empty message"))?;
        let attributes = read_attributes(from)?;
        let by_hand: usize = attributes.iter().map(|(n, v)| n.len() + v.to_string().len()).sum();
        if text.len() + by_hand > MAX_MESSAGE {
            return Err(invalid("Message", "Message too long"));
        }
        let text = match from.get("MessageStructure") {
            None => text.to_owned(),
            Some("json") => for_sqs(text)?,
            Some(_) => return Err(invalid("MessageStructure", "The only valid value is json")),
        };
        let subject = from.get("Subject").filter(|s| !s.is_empty());
        if subject.is_some_and(|s| s.chars().count() > 100 || s.contains('\n')) {
            return Err(invalid("Subject", ""));
        }
        let id = self.about.world.ids.uuid();
        for (subscription, target) in to {
            if target.raw {
                let own = Value::Object(attributes.clone());
                self.sns.sqs.deliver(&target.endpoint, text.clone(), Some(&own));
                continue;
            }
            let region = &self.about.gate.region;
            let mut body = Map::new();
            body.insert("Type".into(), "Notification".into());
            body.insert("MessageId".into(), id.clone().into());
            body.insert("TopicArn".into(), topic.into());
            if let Some(subject) = subject {
                body.insert("Subject".into(), subject.into());
            }
            body.insert("Message".into(), text.clone().into());
            body.insert("Timestamp".into(), with_millis(self.about.world.unix_ms()).into());
            body.insert("SignatureVersion".into(), "1".into());
            // Not signed: nothing in a lab has SNS's key.
            body.insert("Signature".into(), "EXAMPLE".into());
            body.insert(
                "SigningCertURL".into(),
                format!("https://sns.{region}.amazonaws.com/SimpleNotificationService-0000000000000000000000.pem")
                    .into(),
            );
            body.insert(
                "UnsubscribeURL".into(),
                format!("https://sns.{region}.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={subscription}").into(),
            );
            if !attributes.is_empty() {
                body.insert("MessageAttributes".into(), notification_attributes(&attributes));
            }
            // A queue that is gone loses the message, as with AWS.
            self.sns.sqs.deliver(&target.endpoint, Value::Object(body).to_string(), None);
        }
        Ok(id)
    }

    fn subscribe(&self) -> Result<Response, ApiError> {
        let protocol = self.required("Protocol")?.to_owned();
        let endpoint = self.params.text("Endpoint");
        let mut raw = false;
        for entry in self.params.list("Attributes.entry") {
            raw = read_subscription_attribute(&entry.text("key"), &entry.text("value"))?;
        }
        let arn = self.required("TopicArn")?.to_owned();
        parse_topic(&arn)?;
        self.allow("Subscribe", &arn)?;
        self.own(&arn)?;
        if protocol != "sqs" {
            return Err(invalid("Protocol", &format!("vpclab delivers to sqs only, not to {protocol}")));
        }
        if rpc::parse_arn(&endpoint, "sqs").is_none() {
            return Err(invalid("Endpoint", "SQS endpoint ARN"));
        }
        let mut topics = self.sns.lock();
        let topic = topics.get_mut(&arn).ok_or_else(no_topic)?;
        if topic.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(ApiError::bad("SubscriptionLimitExceeded", "Subscription limit exceeded").status(403));
        }
        let existing = topic.subscriptions.iter().find(|(_, s)| s.endpoint == endpoint).map(|(a, _)| a.clone());
        let subscription = existing.unwrap_or_else(|| {
            let made = format!("{arn}:{}", self.about.world.ids.uuid());
            let owner = self.caller.account().to_owned();
            topic.subscriptions.insert(made.clone(), Subscription { endpoint: endpoint.clone(), owner, raw });
            made
        });
        drop(topics);
        Ok(self.reply("Subscribe", |xml| {
            xml.leaf("SubscriptionArn", &subscription);
        }))
    }

    fn unsubscribe(&self) -> Result<Response, ApiError> {
        let arn = self.required("SubscriptionArn")?;
        let topic_arn = topic_of(arn)?;
        self.allow("Unsubscribe", topic_arn)?;
        self.own(topic_arn)?;
        if let Some(topic) = self.sns.lock().get_mut(topic_arn)
            && topic.subscriptions.remove(arn).is_some()
        {
            topic.deleted_subscriptions += 1;
        }
        Ok(self.nothing("Unsubscribe"))
    }

    fn get_subscription_attributes(&self) -> Result<Response, ApiError> {
        let arn = self.required("SubscriptionArn")?.to_owned();
        let found = self.with_subscription("GetSubscriptionAttributes", &arn, |s| s.clone())?;
        let all: BTreeMap<String, String> = [
            ("SubscriptionArn", arn.clone()),
            ("TopicArn", topic_of(&arn)?.to_owned()),
            ("Protocol", "sqs".into()),
            ("Endpoint", found.endpoint),
            ("Owner", found.owner),
            ("RawMessageDelivery", found.raw.to_string()),
            ("PendingConfirmation", "false".into()),
            ("ConfirmationWasAuthenticated", "true".into()),
            ("SubscriptionPrincipal", self.caller.arn.clone()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        Ok(self.reply("GetSubscriptionAttributes", |xml| write_attributes(xml, &all)))
    }

    fn set_subscription_attributes(&self) -> Result<Response, ApiError> {
        let arn = self.required("SubscriptionArn")?;
        let raw = read_subscription_attribute(self.required("AttributeName")?, &self.params.text("AttributeValue"))?;
        self.with_subscription("SetSubscriptionAttributes", arn, |s| s.raw = raw)?;
        Ok(self.nothing("SetSubscriptionAttributes"))
    }

    fn subscriptions(&self, action: &str, all: Vec<[String; 4]>) -> Result<Response, ApiError> {
        let (shown, next) = self.page(all)?;
        Ok(self.reply(action, |xml| {
            xml.open("Subscriptions");
            for [topic, arn, owner, endpoint] in &shown {
                xml.open("member").leaf("TopicArn", topic).leaf("Protocol", "sqs").leaf("SubscriptionArn", arn);
                xml.leaf("Owner", owner).leaf("Endpoint", endpoint).close("member");
            }
            xml.close("Subscriptions");
            if let Some(next) = &next {
                xml.leaf("NextToken", next);
            }
        }))
    }

    /// Pages of [`PAGE`]; the token is the place in the list.
    fn page<T>(&self, all: Vec<T>) -> Result<(Vec<T>, Option<String>), ApiError> {
        let token = self.params.get("NextToken").filter(|t| !t.is_empty()).unwrap_or("0");
        let from: usize = token.parse().map_err(|_| invalid("NextToken", ""))?;
        let more = all.len() > from.saturating_add(PAGE);
        let shown = all.into_iter().skip(from).take(PAGE).collect();
        Ok((shown, more.then(|| (from + PAGE).to_string())))
    }

    /// The topic that `TopicArn` names, once the policies allow the action.
    fn with_topic<T>(
        &self,
        action: &str,
        work: impl FnOnce(&str, &mut Topic) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let arn = self.required("TopicArn")?;
        parse_topic(arn)?;
        self.allow(action, arn)?;
        self.own(arn)?;
        work(arn, self.sns.lock().get_mut(arn).ok_or_else(no_topic)?)
    }

    fn with_tags<T>(
        &self,
        action: &str,
        work: impl FnOnce(&mut BTreeMap<String, String>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let arn = self.required("ResourceArn")?;
        parse_topic(arn)?;
        self.allow(action, arn)?;
        self.own(arn)?;
        let missing = || ApiError::bad("ResourceNotFound", "Resource does not exist").status(404);
        work(&mut self.sns.lock().get_mut(arn).ok_or_else(missing)?.tags)
    }

    fn with_subscription<T>(
        &self,
        action: &str,
        arn: &str,
        work: impl FnOnce(&mut Subscription) -> T,
    ) -> Result<T, ApiError> {
        let topic_arn = topic_of(arn)?;
        self.allow(action, topic_arn)?;
        self.own(topic_arn)?;
        let missing = || ApiError::bad("NotFound", "Subscription does not exist").status(404);
        let mut topics = self.sns.lock();
        let found = topics.get_mut(topic_arn).and_then(|t| t.subscriptions.get_mut(arn)).ok_or_else(missing)?;
        Ok(work(found))
    }

    fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.about
            .judge(Some(self.caller), &format!("SNS:{action}"), resource, Identity::Asked)
            .map_err(|message| upstream::denied(DIALECT, message))
    }

    /// Another account's topic needs a topic policy, which this version does not judge; another region's is not here.
    fn own(&self, arn: &str) -> Result<(), ApiError> {
        let (region, account, _) = parse_topic(arn)?;
        if region != self.about.gate.region {
            return Err(invalid("TopicArn", ""));
        }
        if account != self.caller.account() {
            let message = format!(
                "User: {} is not authorized to perform this action on resource: {arn} because no resource-based policy \
                 allows it",
                self.caller.arn
            );
            return Err(upstream::denied(DIALECT, message));
        }
        Ok(())
    }

    fn own_prefix(&self) -> String {
        format!("arn:aws:sns:{}:{}:", self.about.gate.region, self.caller.account())
    }

    fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.params.get(name).filter(|v| !v.is_empty()).ok_or_else(|| invalid(name, "no value for required parameter"))
    }

    fn reply(&self, action: &str, mut write: impl FnMut(&mut Xml)) -> Response {
        rpc::query_answer(NAMESPACE, action, &self.about.request_id, Some(&mut write))
    }

    fn nothing(&self, action: &str) -> Response {
        rpc::query_answer(NAMESPACE, action, &self.about.request_id, None)
    }
}

const DELIVERY_POLICY: &str = "{\"http\":{\"defaultHealthyRetryPolicy\":{\"minDelayTarget\":20,\"maxDelayTarget\":20,\
                               \"numRetries\":3,\"numMaxDelayRetries\":0,\"numNoDelayRetries\":0,\"numMinDelayRetries\":0,\
                               \"backoffFunction\":\"linear\"},\"disableSubscriptionOverrides\":false,\
                               \"defaultRequestPolicy\":{\"headerContentType\":\"text/plain; charset=UTF-8\"}}}";

fn default_policy(arn: &str, owner: &str) -> String {
    json!({
        "Version": "2008-10-17",
        "Id": "__default_policy_ID",
        "Statement": [{
            "Sid": "__default_statement_ID",
            "Effect": "Allow",
            "Principal": { "AWS": "*" },
            "Action": ["SNS:GetTopicAttributes", "SNS:SetTopicAttributes", "SNS:AddPermission",
                       "SNS:RemovePermission", "SNS:DeleteTopic", "SNS:Subscribe", "SNS:ListSubscriptionsByTopic",
                       "SNS:Publish"],
            "Resource": arn,
            "Condition": { "StringEquals": { "AWS:SourceOwner": owner } },
        }],
    })
    .to_string()
}

fn entries<'a>(arn: &'a str, topic: &'a Topic) -> impl Iterator<Item = [String; 4]> + 'a {
    topic.subscriptions.iter().map(move |(own, s)| [arn.to_owned(), own.clone(), s.owner.clone(), s.endpoint.clone()])
}

/// `MessageAttributes.entry.N`, in the form that SQS reads.
fn read_attributes(from: &Params) -> Result<Map<String, Value>, ApiError> {
    let mut attributes = Map::new();
    for entry in from.list("MessageAttributes.entry") {
        let (name, kind) = (entry.text("Name"), entry.text("Value.DataType"));
        let mut value = Map::new();
        for field in ["StringValue", "BinaryValue"] {
            if let Some(text) = entry.get(&format!("Value.{field}")) {
                value.insert(field.into(), text.into());
            }
        }
        let known = ["String", "String.Array", "Number", "Binary"].contains(&kind.as_str());
        if name.is_empty() || !known || value.is_empty() {
            return Err(ApiError::bad(
                "ParameterValueInvalid",
                format!("The message attribute '{name}' must contain a valid type and a non-empty value."),
            ));
        }
        value.insert("DataType".into(), kind.into());
        attributes.insert(name, value.into());
    }
    Ok(attributes)
}

/// In a notification an attribute is `{ "Type", "Value" }`.
fn notification_attributes(attributes: &Map<String, Value>) -> Value {
    let shown = attributes.iter().map(|(name, a)| {
        let value = a.get("StringValue").or(a.get("BinaryValue")).cloned().unwrap_or_default();
        (name.clone(), json!({ "Type": a.get("DataType"), "Value": value }))
    });
    Value::Object(shown.collect())
}

/// `MessageStructure=json`: one text per protocol.
fn for_sqs(text: &str) -> Result<String, ApiError> {
    let parsed: Value =
        serde_json::from_str(text).map_err(|_| invalid("Message Structure", "JSON message body failed to parse"))?;
    let chosen = parsed.get("sqs").or(parsed.get("default")).and_then(Value::as_str);
    if parsed.get("default").is_none() {
        return Err(invalid("Message Structure", "No default entry in JSON message body"));
    }
    chosen.map(str::to_owned).ok_or_else(|| invalid("Message Structure", "No default entry in JSON message body"))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if name.ends_with(".fifo") {
        return Err(invalid("Topic Name", "FIFO topics are not in this version of vpclab"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 256 || !name.chars().all(fits) {
        return Err(ApiError::bad("InvalidParameter", "Invalid parameter: Topic Name"));
    }
    Ok(())
}

fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let fits =
        |(key, value): (&String, &String)| (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
    if tags.len() > MAX_TAGS {
        return Err(ApiError::bad("TagLimitExceeded", format!("Can't add more than {MAX_TAGS} tags to a topic.")));
    }
    if tags.iter().all(fits) { Ok(()) } else { Err(invalid("Tags", "keys have 1 to 128 characters, values up to 256")) }
}

fn check_topic_attribute(name: &str, value: &str) -> Result<(), ApiError> {
    if value.len() > MAX_ATTRIBUTE {
        return Err(invalid("AttributeValue", &format!("longer than {MAX_ATTRIBUTE} bytes")));
    }
    match name {
        "DisplayName" | "KmsMasterKeyId" | "SignatureVersion" | "TracingConfig" | "DeliveryPolicy" => Ok(()),
        "Policy" => Err(invalid("AttributeName", "topic policies are not in this version of vpclab")),
        _ => Err(invalid("AttributeName", "")),
    }
}

/// The one attribute of subscriptions that is built: raw delivery.
fn read_subscription_attribute(name: &str, value: &str) -> Result<bool, ApiError> {
    match (name, value) {
        ("RawMessageDelivery", "true" | "false") => Ok(value == "true"),
        ("RawMessageDelivery", _) => {
            Err(invalid("Attributes", "RawMessageDelivery: Invalid value. Must be true or false."))
        }
        _ => Err(invalid("Attributes", &format!("{name} is not in this version of vpclab"))),
    }
}

fn parse_topic(arn: &str) -> Result<(&str, &str, &str), ApiError> {
    rpc::parse_arn(arn, "sns").ok_or_else(|| {
        invalid("TopicArn", &format!("An ARN must have at least 6 elements, not {}", arn.split(':').count()))
    })
}

/// `...:topic:UUID` -> `...:topic`.
fn topic_of(subscription: &str) -> Result<&str, ApiError> {
    let bad = || invalid("SubscriptionArn", "An ARN must have at least 7 elements");
    let (topic, _) = subscription.rsplit_once(':').ok_or_else(bad)?;
    parse_topic(topic).map_err(|_| bad())?;
    Ok(topic)
}

fn no_topic() -> ApiError {
    ApiError::bad("NotFound", "Topic does not exist").status(404)
}

fn invalid(what: &str, reason: &str) -> ApiError {
    let reason = if reason.is_empty() { String::new() } else { format!(" Reason: {reason}") };
    ApiError::bad("InvalidParameter", format!("Invalid parameter: {what}{reason}"))
}

fn write_attributes(xml: &mut Xml, attributes: &BTreeMap<String, String>) {
    xml.open("Attributes");
    for (key, value) in attributes {
        xml.open("entry").leaf("key", key).leaf("value", value).close("entry");
    }
    xml.close("Attributes");
}

/// `2026-11-21T09:06:55.123Z`.
fn with_millis(unix_ms: u64) -> String {
    let seconds = UnixTime(unix_ms / 1_000).iso8601();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1_000)
}
