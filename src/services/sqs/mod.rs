//! SQS, by the JSON protocol of today's clients and the query protocol of older ones (aws-cli 2.9).

mod attributes;
mod form;
mod message;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::errors::{ApiError, Dialect};
use super::http_types::{About, Caller, Identity, Request, Response, Service, Verification, full_request, read_body};
use super::rpc::{self, Params};
use super::upstream;
use super::world::World;
use crate::model::plan::{Backend, Plan};
use attributes::{check_attributes, check_name, defaults, fifo_fields, known_attribute, redrive};
use message::{MAX_MESSAGE, Message, md5_of_attributes, md5_of_body, read_attributes, received, sequence_number};
use queue::{Full, MAX_TAGS, Place, Queue, Store};

const NAMESPACE: &str = "http://queue.amazonaws.com/doc/2012-11-05/";

/// The service and its queues.
pub(super) struct Sqs {
    world: Arc<World>,
    store: Store,
}

type Object = Map<String, Value>;

impl Sqs {
    pub(super) fn new(world: Arc<World>) -> Sqs {
        Sqs { world, store: Store::default() }
    }

    /// Puts a message into the queue with this ARN, as SNS does. `false`: no such queue, or it is full.
    pub(super) fn deliver(&self, arn: &str, body: String, attributes: Option<&Value>) -> bool {
        let Some((region, account, name)) = rpc::parse_arn(arn, "sqs") else { return false };
        let Some(queue) = self.store.find(&(account.to_owned(), region.to_owned()), name) else { return false };
        if queue.fifo() {
            return false;
        }
        let now = self.world.unix_ms();
        let mut inner = queue.lock();
        let message = Message {
            id: self.world.ids.uuid(),
            body,
            attributes: read_attributes(attributes).unwrap_or_default(),
            // SNS's own principal.
            sender: "AIDAIT2UOQQY3AUEKVGXU".into(),
            sent_ms: now,
            first_received_ms: None,
            receive_count: 0,
            visible_ms: now + inner.number("DelaySeconds") * 1_000,
            receipt: 0,
            group: None,
            deduplication: None,
            trace_header: None,
        };
        let taken = inner.push(message).is_ok();
        drop(inner);
        queue.arrived.notify_waiters();
        taken
    }
}

impl Service for Sqs {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: Some("sqs"), anonymous: false, max_body: rpc::MAX_BODY }
    }

    fn dialect(&self, head: &Parts) -> Dialect {
        if head.headers.contains_key("x-amz-target") {
            Dialect::QueryCompatibleJson
        } else {
            Dialect::Query { namespace: NAMESPACE }
        }
    }

    fn load(&self, plan: &Plan) -> Result<(), String> {
        for service in plan.services.iter().filter(|s| s.name == "sqs" && s.backend == Backend::Builtin) {
            let place = (service.account.clone(), service.region.clone());
            for name in &service.contents.queues {
                check_name(name).map_err(|e| format!("queue {name}: {}", e.message))?;
                let attributes = defaults(name.ends_with(".fifo"));
                let now = self.world.unix().0;
                self.store
                    .find_or_make(&place, name, || Queue::new(place.clone(), name, now, attributes))
                    .map_err(|Full| format!("queue {name}: too many queues"))?;
            }
        }
        Ok(())
    }

    fn handle(&self, mut request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let about = request.about.clone();
            let dialect = self.dialect(&request.head);
            let body = std::mem::replace(&mut request.body, full_request(Default::default()));
            let body = read_body(body, rpc::MAX_BODY).await.ok().flatten().unwrap_or_default();
            let (action, input) = match dialect {
                Dialect::QueryCompatibleJson => {
                    let action = rpc::json_action(&request.head, "AmazonSQS").unwrap_or("").to_owned();
                    (action, rpc::json_body(&body))
                }
                _ => {
                    let params = Params::of(&request.head, &body);
                    (params.text("Action"), Ok(form::input(&params, request.head.uri.path())))
                }
            };
            let result = match (input, request.caller(dialect)) {
                (Ok(input), Ok(caller)) => {
                    let host = host(&request, &about);
                    let call = Call { sqs: self, about: &about, caller, dialect, input: &input, host };
                    call.run(&action).await
                }
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            match result {
                Err(error) => error.render(dialect, &about.request_id),
                Ok(output) if dialect == Dialect::QueryCompatibleJson => {
                    rpc::json_answer("1.0", &Value::Object(output))
                }
                Ok(mut output) => {
                    if let Some(successes) = output.remove("Successful") {
                        output.insert(form::success_element(&action), successes);
                    }
                    let mut write = |xml: &mut super::xml::Xml| form::output(xml, &output);
                    let result: Option<&mut dyn FnMut(&mut super::xml::Xml)> =
                        if answers_nothing(&action) { None } else { Some(&mut write) };
                    rpc::query_answer(NAMESPACE, &action, &about.request_id, result)
                }
            }
        })
    }
}

/// One request at work.
struct Call<'a> {
    sqs: &'a Sqs,
    about: &'a About,
    caller: &'a Caller,
    dialect: Dialect,
    input: &'a Object,
    /// `https://sqs.eu-west-1.amazonaws.com`: queue URLs begin with the name that the client used.
    host: String,
}

impl Call<'_> {
    async fn run(&self, action: &str) -> Result<Object, ApiError> {
        match action {
            "CreateQueue" => self.create_queue(),
            "GetQueueUrl" => self.get_queue_url(),
            "ListQueues" => self.list_queues(),
            "DeleteQueue" => self.delete_queue(),
            "PurgeQueue" => self.purge_queue(),
            "GetQueueAttributes" => self.get_queue_attributes(),
            "SetQueueAttributes" => self.set_queue_attributes(),
            "SendMessage" => self.send_message(),
            "SendMessageBatch" => self.send_message_batch(),
            "ReceiveMessage" => self.receive_message().await,
            "DeleteMessage" => {
                let queue = self.queue("DeleteMessage")?;
                self.delete_one(&queue, self.input).map(|()| Object::new())
            }
            "DeleteMessageBatch" => {
                let queue = self.queue("DeleteMessage")?;
                self.each_entry(|entry| self.delete_one(&queue, entry).map(|()| Object::new()))
            }
            "ChangeMessageVisibility" => {
                let queue = self.queue("ChangeMessageVisibility")?;
                self.change_one(&queue, self.input).map(|()| Object::new())
            }
            "ChangeMessageVisibilityBatch" => {
                let queue = self.queue("ChangeMessageVisibility")?;
                self.each_entry(|entry| self.change_one(&queue, entry).map(|()| Object::new()))
            }
            "ListQueueTags" => {
                let queue = self.queue("ListQueueTags")?;
                let tags: Object = queue.lock().tags.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
                let mut out = Object::new();
                if !tags.is_empty() {
                    out.insert("Tags".into(), tags.into());
                }
                Ok(out)
            }
            "TagQueue" => {
                let queue = self.queue("TagQueue")?;
                let mut inner = queue.lock();
                let mut tags = inner.tags.clone();
                tags.extend(strings(self.input.get("Tags")));
                check_tags(&tags)?;
                inner.tags = tags;
                Ok(Object::new())
            }
            "UntagQueue" => {
                let queue = self.queue("UntagQueue")?;
                let keys = names(self.input, "TagKeys");
                queue.lock().tags.retain(|k, _| !keys.contains(k));
                Ok(Object::new())
            }
            "ListDeadLetterSourceQueues" => self.list_dead_letter_sources(),
            "" if self.dialect != Dialect::QueryCompatibleJson => {
                Err(ApiError::bad("MissingAction", "The request must contain the parameter Action."))
            }
            _ => Err(rpc::unknown_action(self.dialect, action, "2012-11-05")),
        }
    }

    fn create_queue(&self) -> Result<Object, ApiError> {
        let name = self.text("QueueName").ok_or_else(|| missing("QueueName"))?;
        let place = self.own_place();
        self.allow("CreateQueue", &arn_of(&place, name))?;
        check_name(name)?;
        let fifo = name.ends_with(".fifo");
        let given = strings(self.input.get("Attributes"));
        check_attributes(&given, fifo, true)?;
        let mut attributes = defaults(fifo);
        attributes.extend(given.clone());
        let tags = strings(self.input.get("tags"));
        check_tags(&tags)?;
        let now = self.about.time.0;
        let (queue, made) = self
            .sqs
            .store
            .find_or_make(&place, name, || Queue::new(place.clone(), name, now, attributes))
            .map_err(|Full| over_limit("This lab has no room for more queues."))?;
        let mut inner = queue.lock();
        if made {
            inner.tags.extend(tags);
        } else if let Some((differing, _)) = given.iter().find(|(k, v)| inner.attributes.get(*k) != Some(*v)) {
            return Err(ApiError::bad(
                "QueueAlreadyExists",
                format!("A queue already exists with the same name and a different value for attribute {differing}"),
            )
            .shape("com.amazonaws.sqs#QueueNameExists"));
        }
        drop(inner);
        Ok(self.url_of(&queue))
    }

    fn get_queue_url(&self) -> Result<Object, ApiError> {
        let name = self.text("QueueName").ok_or_else(|| missing("QueueName"))?;
        let mut place = self.own_place();
        if let Some(owner) = self.text("QueueOwnerAWSAccountId") {
            place.0 = owner.to_owned();
        }
        self.allow_in("GetQueueUrl", &place, &arn_of(&place, name))?;
        let queue = self.sqs.store.find(&place, name).ok_or_else(no_queue)?;
        Ok(self.url_of(&queue))
    }

    fn list_queues(&self) -> Result<Object, ApiError> {
        self.allow("ListQueues", "*")?;
        let prefix = self.text("QueueNamePrefix").unwrap_or("");
        let found = self.sqs.store.list(&self.own_place());
        let urls = found.iter().filter(|q| q.name.starts_with(prefix)).map(|q| self.url(q)).collect();
        self.page("QueueUrls", urls)
    }

    fn list_dead_letter_sources(&self) -> Result<Object, ApiError> {
        let queue = self.queue("ListDeadLetterSourceQueues")?;
        let arn = queue.arn();
        let all = self.sqs.store.list(&queue.place);
        let leads_here = |q: &&Arc<Queue>| redrive(&q.lock().attributes).is_some_and(|(target, _)| target == arn);
        let urls = all.iter().filter(leads_here).map(|q| self.url(q)).collect();
        self.page("queueUrls", urls)
    }

    /// `MaxResults` and `NextToken`: the token is the place in the list.
    fn page(&self, key: &str, urls: Vec<String>) -> Result<Object, ApiError> {
        let token = self.text("NextToken").unwrap_or("0");
        let from: usize = token.parse().map_err(|_| invalid_value("Invalid or expired next token."))?;
        let limit = self.number("MaxResults", 1, 1_000)?;
        let size = limit.map_or(1_000, |n| usize::try_from(n).unwrap_or(1_000));
        let mut out = Object::new();
        let more = urls.len() > from.saturating_add(size);
        let shown: Vec<String> = urls.into_iter().skip(from).take(size).collect();
        if !shown.is_empty() {
            out.insert(key.into(), shown.into());
        }
        if more && limit.is_some() {
            out.insert("NextToken".into(), (from + size).to_string().into());
        }
        Ok(out)
    }

    fn delete_queue(&self) -> Result<Object, ApiError> {
        let queue = self.queue("DeleteQueue")?;
        self.sqs.store.remove(&queue.place, &queue.name);
        Ok(Object::new())
    }

    fn purge_queue(&self) -> Result<Object, ApiError> {
        let queue = self.queue("PurgeQueue")?;
        let now = self.sqs.world.unix_ms();
        let mut inner = queue.lock();
        if inner.purged_ms.is_some_and(|at| at + 60_000 > now) {
            let message = format!("Only one PurgeQueue operation on {} is allowed every 60 seconds.", queue.name);
            return Err(ApiError::bad("AWS.SimpleQueueService.PurgeQueueInProgress", message)
                .status(403)
                .shape("com.amazonaws.sqs#PurgeQueueInProgress"));
        }
        inner.purged_ms = Some(now);
        inner.purge();
        Ok(Object::new())
    }

    fn get_queue_attributes(&self) -> Result<Object, ApiError> {
        let queue = self.queue("GetQueueAttributes")?;
        let wanted = names(self.input, "AttributeNames");
        let mut inner = queue.lock();
        let (visible, in_flight, delayed) = inner.counts(self.sqs.world.unix_ms());
        let mut all: Vec<(String, String)> = vec![
            ("QueueArn".into(), queue.arn()),
            ("ApproximateNumberOfMessages".into(), visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible".into(), in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed".into(), delayed.to_string()),
            ("CreatedTimestamp".into(), queue.created.to_string()),
            ("LastModifiedTimestamp".into(), inner.modified.to_string()),
        ];
        all.extend(inner.attributes.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.clone(), v.clone())));
        drop(inner);
        for name in &wanted {
            if name != "All" && !known_attribute(name) {
                return Err(ApiError::bad("InvalidAttributeName", format!("Unknown Attribute {name}."))
                    .shape("com.amazonaws.sqs#InvalidAttributeName"));
            }
        }
        let asked = |name: &str| wanted.iter().any(|w| w == "All" || w == name);
        let shown: Object = all.into_iter().filter(|(n, _)| asked(n)).map(|(n, v)| (n, v.into())).collect();
        let mut out = Object::new();
        if !shown.is_empty() {
            out.insert("Attributes".into(), shown.into());
        }
        Ok(out)
    }

    fn set_queue_attributes(&self) -> Result<Object, ApiError> {
        let queue = self.queue("SetQueueAttributes")?;
        let given = strings(self.input.get("Attributes"));
        if given.is_empty() {
            return Err(missing("Attribute.Name"));
        }
        check_attributes(&given, queue.fifo(), false)?;
        let mut inner = queue.lock();
        inner.attributes.extend(given);
        inner.modified = self.about.time.0;
        Ok(Object::new())
    }

    fn send_message(&self) -> Result<Object, ApiError> {
        let queue = self.queue("SendMessage")?;
        let out = self.send_one(&queue, self.input)?;
        queue.arrived.notify_waiters();
        Ok(out)
    }

    fn send_message_batch(&self) -> Result<Object, ApiError> {
        let queue = self.queue("SendMessage")?;
        let entries = self.entries()?;
        let total: usize = entries.iter().map(|e| text_in(e, "MessageBody").map_or(0, str::len)).sum();
        if total > MAX_MESSAGE {
            return Err(ApiError::bad(
                "AWS.SimpleQueueService.BatchRequestTooLong",
                format!("Batch requests cannot be longer than {MAX_MESSAGE} bytes. You have sent {total} bytes."),
            )
            .shape("com.amazonaws.sqs#BatchRequestTooLong"));
        }
        let out = self.each_entry(|entry| self.send_one(&queue, entry));
        queue.arrived.notify_waiters();
        out
    }

    fn send_one(&self, queue: &Queue, entry: &Object) -> Result<Object, ApiError> {
        let body = text_in(entry, "MessageBody").ok_or_else(|| missing("MessageBody"))?;
        let attributes = read_attributes(entry.get("MessageAttributes"))?;
        let allowed =
            |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if body.is_empty() {
            return Err(missing("MessageBody"));
        }
        if !body.chars().all(allowed) {
            let message = "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | \
                           #xE000 to #xFFFD | #x10000 to #x10FFFF";
            return Err(
                ApiError::bad("InvalidMessageContents", message).shape("com.amazonaws.sqs#InvalidMessageContents")
            );
        }
        let delay = number_in(entry, "DelaySeconds", 0, 900)?;
        let now = self.sqs.world.unix_ms();
        let mut inner = queue.lock();
        let size = body.len() + message::size_of_attributes(&attributes);
        let most = inner.number("MaximumMessageSize");
        if size as u64 > most {
            return Err(invalid_value(&format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {most} bytes."
            )));
        }
        let (group, deduplication) = fifo_fields(queue, &inner.attributes, entry, body, delay)?;
        let delay = delay.unwrap_or_else(|| inner.number("DelaySeconds"));
        let mut out = Object::new();
        out.insert("MD5OfMessageBody".into(), md5_of_body(body).into());
        if let Some(md5) = md5_of_attributes(&attributes) {
            out.insert("MD5OfMessageAttributes".into(), md5.into());
        }
        if let Some(id) = &deduplication
            && let Some((message, seq)) = inner.duplicate(id, now)
        {
            out.insert("MessageId".into(), message.into());
            out.insert("SequenceNumber".into(), sequence_number(seq).into());
            return Ok(out);
        }
        let trace = entry.get("MessageSystemAttributes").and_then(|a| a.get("AWSTraceHeader"));
        let message = Message {
            id: self.sqs.world.ids.uuid(),
            body: body.to_owned(),
            attributes,
            sender: self.caller.user_id(),
            sent_ms: now,
            first_received_ms: None,
            receive_count: 0,
            visible_ms: now + delay * 1_000,
            receipt: 0,
            group,
            deduplication: deduplication.clone(),
            trace_header: trace.and_then(|t| t.get("StringValue")?.as_str()).map(str::to_owned),
        };
        let id = message.id.clone();
        let seq = inner.push(message).map_err(|Full| over_limit("The queues of this lab are full."))?;
        if let Some(deduplication) = deduplication {
            inner.remember(deduplication, now, id.clone(), seq);
            out.insert("SequenceNumber".into(), sequence_number(seq).into());
        }
        out.insert("MessageId".into(), id.into());
        Ok(out)
    }

    /// Long polling: waits for a message up to `WaitTimeSeconds`, or the queue's own time.
    async fn receive_message(&self) -> Result<Object, ApiError> {
        let queue = self.queue("ReceiveMessage")?;
        let most = self.number("MaxNumberOfMessages", 1, 10)?.unwrap_or(1);
        let most = usize::try_from(most).unwrap_or(1);
        let hidden = self.number("VisibilityTimeout", 0, 43_200)?;
        let wait = self.number("WaitTimeSeconds", 0, 20)?;
        let mut system = names(self.input, "AttributeNames");
        system.extend(names(self.input, "MessageSystemAttributeNames"));
        let wanted = names(self.input, "MessageAttributeNames");
        let wait = wait.unwrap_or_else(|| queue.lock().number("ReceiveMessageWaitTimeSeconds"));
        let world = &self.sqs.world;
        let deadline = world.unix_ms() + wait * 1_000;
        loop {
            let arrived = queue.arrived.notified();
            tokio::pin!(arrived);
            // Before the look, so that nothing that comes after it is missed.
            arrived.as_mut().enable();
            let now = world.unix_ms();
            let (batch, next) = {
                let mut inner = queue.lock();
                let hidden_ms = hidden.unwrap_or_else(|| inner.number("VisibilityTimeout")) * 1_000;
                let most_receives = redrive(&inner.attributes).map(|(_, n)| n);
                let batch = inner.receive(now, most, hidden_ms, queue.fifo(), most_receives);
                (batch, inner.next_visible_ms(now))
            };
            if batch.over_limit {
                return Err(over_limit("Too many messages in flight."));
            }
            self.bury(&queue, batch.dead);
            if !batch.messages.is_empty() || now >= deadline {
                let mut out = Object::new();
                if !batch.messages.is_empty() {
                    let shown: Vec<Value> = batch
                        .messages
                        .iter()
                        .map(|(seq, m)| received(m, *seq, handle(&queue, *seq, m.receipt), &system, &wanted))
                        .collect();
                    out.insert("Messages".into(), shown.into());
                }
                return Ok(out);
            }
            let until = next.map_or(deadline, |at| at.min(deadline));
            let pause = Duration::from_millis(until.saturating_sub(now).max(1));
            // Either way the queue is looked at again.
            let _ = tokio::time::timeout(pause, arrived).await;
        }
    }

    /// Moves messages to the dead-letter queue; where that is gone they are lost.
    fn bury(&self, queue: &Queue, dead: Vec<Message>) {
        if dead.is_empty() {
            return;
        }
        let target = redrive(&queue.lock().attributes).map(|(arn, _)| arn);
        let found = target
            .as_deref()
            .and_then(|arn| rpc::parse_arn(arn, "sqs"))
            .and_then(|(region, account, name)| self.sqs.store.find(&(account.to_owned(), region.to_owned()), name));
        if let Some(target) = found {
            let now = self.sqs.world.unix_ms();
            let mut inner = target.lock();
            for mut message in dead {
                message.visible_ms = now;
                let _ = inner.push(message);
            }
            drop(inner);
            target.arrived.notify_waiters();
        }
    }

    fn delete_one(&self, queue: &Queue, entry: &Object) -> Result<(), ApiError> {
        let (seq, _) = receipt(queue, entry)?;
        queue.lock().delete(seq);
        // The next of its FIFO group may go.
        queue.arrived.notify_waiters();
        Ok(())
    }

    fn change_one(&self, queue: &Queue, entry: &Object) -> Result<(), ApiError> {
        let (seq, number) = receipt(queue, entry)?;
        let seconds = number_in(entry, "VisibilityTimeout", 0, 43_200)?.ok_or_else(|| missing("VisibilityTimeout"))?;
        let now = self.sqs.world.unix_ms();
        let mut inner = queue.lock();
        if !inner.in_flight_as(seq, number, now) {
            return Err(ApiError::bad(
                "InvalidParameterValue",
                "Value for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for \
                 visibility timeout change.",
            )
            .shape("com.amazonaws.sqs#MessageNotInflight"));
        }
        inner.show_at(seq, now + seconds * 1_000);
        drop(inner);
        queue.arrived.notify_waiters();
        Ok(())
    }

    /// The entries of a batch, after the checks that concern the whole.
    fn entries(&self) -> Result<Vec<&Object>, ApiError> {
        let error = |code: &str, shape: &str, message: &str| {
            ApiError::bad(format!("AWS.SimpleQueueService.{code}"), message).shape(format!("com.amazonaws.sqs#{shape}"))
        };
        let list = self.input.get("Entries").and_then(Value::as_array);
        let entries: Vec<&Object> = list.into_iter().flatten().filter_map(Value::as_object).collect();
        if entries.is_empty() {
            let message = "There should be at least one entry in the request.";
            return Err(error("EmptyBatchRequest", "EmptyBatchRequest", message));
        }
        if entries.len() > 10 {
            let message = format!("Maximum number of entries per request are 10. You have sent {}.", entries.len());
            return Err(error("TooManyEntriesInBatchRequest", "TooManyEntriesInBatchRequest", &message));
        }
        let mut seen = BTreeSet::new();
        for entry in &entries {
            let id = text_in(entry, "Id").unwrap_or("");
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if id.is_empty() || id.len() > 80 || !id.chars().all(fits) {
                let message = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It \
                               can be at most 80 letters long.";
                return Err(error("InvalidBatchEntryId", "InvalidBatchEntryId", message));
            }
            if !seen.insert(id) {
                let message = format!("Id {id} repeated.");
                return Err(error("BatchEntryIdsNotDistinct", "BatchEntryIdsNotDistinct", &message));
            }
        }
        Ok(entries)
    }

    fn each_entry(&self, mut one: impl FnMut(&Object) -> Result<Object, ApiError>) -> Result<Object, ApiError> {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in self.entries()? {
            let id = text_in(entry, "Id").unwrap_or("").to_owned();
            match one(entry) {
                Ok(mut out) => {
                    out.insert("Id".into(), id.into());
                    successful.push(Value::Object(out));
                }
                Err(e) => failed.push(json!({
                    "Id": id, "SenderFault": true, "Code": e.code, "Message": e.message,
                })),
            }
        }
        let mut out = Object::new();
        out.insert("Successful".into(), successful.into());
        if !failed.is_empty() {
            out.insert("Failed".into(), failed.into());
        }
        Ok(out)
    }

    /// The queue that `QueueUrl` names, once the policies allow the action.
    fn queue(&self, action: &str) -> Result<Arc<Queue>, ApiError> {
        let url = self.text("QueueUrl").ok_or_else(|| missing("QueueUrl"))?;
        let path = url.split_once("://").map_or(url, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        let mut parts = path.trim_matches('/').rsplit('/');
        let (name, account) = (parts.next().unwrap_or(""), parts.next());
        if name.is_empty() {
            return Err(ApiError::bad("InvalidAddress", format!("The address {url} is not valid for this endpoint."))
                .status(404)
                .shape("com.amazonaws.sqs#InvalidAddress"));
        }
        let mut place = self.own_place();
        if let Some(account) = account {
            place.0 = account.to_owned();
        }
        self.allow_in(action, &place, &arn_of(&place, name))?;
        self.sqs.store.find(&place, name).ok_or_else(no_queue)
    }

    fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.about
            .judge(Some(self.caller), &format!("sqs:{action}"), resource, Identity::Asked)
            .map_err(|message| upstream::denied(self.dialect, message))
    }

    /// Another account's queue needs a queue policy, which this version does not judge: it is refused.
    fn allow_in(&self, action: &str, place: &Place, resource: &str) -> Result<(), ApiError> {
        self.allow(action, resource)?;
        if place.0 == self.caller.account() {
            return Ok(());
        }
        let message = format!(
            "User: {} is not authorized to perform: sqs:{action} on resource: {resource} because no resource-based \
             policy allows the sqs:{action} action",
            self.caller.arn
        );
        Err(upstream::denied(self.dialect, message))
    }

    fn own_place(&self) -> Place {
        (self.caller.account().to_owned(), self.about.gate.region.clone())
    }

    fn url(&self, queue: &Queue) -> String {
        format!("{}/{}/{}", self.host, queue.place.0, queue.name)
    }

    fn url_of(&self, queue: &Queue) -> Object {
        [("QueueUrl".to_owned(), Value::from(self.url(queue)))].into_iter().collect()
    }

    fn text(&self, name: &str) -> Option<&str> {
        text_in(self.input, name)
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        number_in(self.input, name, least, most)
    }
}

/// A receipt handle: number of the message, number of the receipt, and the queue, so that no other queue takes it.
fn handle(queue: &Queue, seq: u64, receipt: u64) -> String {
    let text = format!("{seq}:{receipt}:{}:{}", queue.created, queue.arn());
    format!("AQEB{}", STANDARD.encode(text))
}

fn receipt(queue: &Queue, entry: &Object) -> Result<(u64, u64), ApiError> {
    let handle = text_in(entry, "ReceiptHandle").filter(|h| !h.is_empty()).ok_or_else(|| missing("ReceiptHandle"))?;
    let read = || {
        let text = String::from_utf8(STANDARD.decode(handle.strip_prefix("AQEB")?).ok()?).ok()?;
        let mut parts = text.splitn(4, ':');
        let (seq, receipt) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let own = parts.next()? == queue.created.to_string() && parts.next()? == queue.arn();
        (own && queue.lock().given_out(seq, receipt)).then_some((seq, receipt))
    };
    read().ok_or_else(|| {
        ApiError::bad(
            "ReceiptHandleIsInvalid",
            format!("The input receipt handle \"{handle}\" is not a valid receipt handle."),
        )
        .status(404)
        .shape("com.amazonaws.sqs#ReceiptHandleIsInvalid")
    })
}

fn host(request: &Request, about: &About) -> String {
    let scheme = if about.tls { "https" } else { "http" };
    let given = request.head.headers.get(http::header::HOST).and_then(|h| h.to_str().ok());
    match given {
        Some(host) => format!("{scheme}://{host}"),
        None => format!("https://sqs.{}.amazonaws.com", about.gate.region),
    }
}

fn answers_nothing(action: &str) -> bool {
    matches!(
        action,
        "DeleteQueue"
            | "PurgeQueue"
            | "SetQueueAttributes"
            | "DeleteMessage"
            | "ChangeMessageVisibility"
            | "TagQueue"
            | "UntagQueue"
    )
}

fn arn_of(place: &Place, name: &str) -> String {
    format!("arn:aws:sqs:{}:{}:{name}", place.1, place.0)
}

fn no_queue() -> ApiError {
    ApiError::bad("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
        .shape("com.amazonaws.sqs#QueueDoesNotExist")
}

fn over_limit(message: &str) -> ApiError {
    ApiError::bad("OverLimit", message).status(403).shape("com.amazonaws.sqs#OverLimit")
}

/// Number and lengths of tags (Amazon SQS Developer Guide, "Queue quotas").
fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let fits =
        |(key, value): (&String, &String)| (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
    if tags.len() > MAX_TAGS {
        return Err(invalid_value(&format!("Too many tags added for queue. Maximum is {MAX_TAGS}.")));
    }
    if !tags.iter().all(fits) {
        return Err(invalid_value("Tag keys must be between 1 and 128 characters in length, tag values at most 256."));
    }
    Ok(())
}

fn missing(name: &str) -> ApiError {
    ApiError::bad("MissingParameter", format!("The request must contain the parameter {name}."))
        .shape("com.amazon.coral.service#MissingRequiredParameterException")
}

fn invalid_value(message: &str) -> ApiError {
    ApiError::bad("InvalidParameterValue", message).shape("com.amazon.coral.service#InvalidParameterValueException")
}

fn text_in<'a>(entry: &'a Object, name: &str) -> Option<&'a str> {
    entry.get(name).and_then(Value::as_str)
}

fn number_in(entry: &Object, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
    let Some(value) = entry.get(name).filter(|v| !v.is_null()) else { return Ok(None) };
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|n| (least..=most).contains(n));
    number.map(Some).ok_or_else(|| {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        invalid_value(&format!(
            "Value {shown} for parameter {name} is invalid. Reason: Must be >= {least} and <= {most}, if provided."
        ))
    })
}

fn names(input: &Object, name: &str) -> Vec<String> {
    let list = input.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
        .collect()
}
