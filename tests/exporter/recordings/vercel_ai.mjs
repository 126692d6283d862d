// One agent of Vercel's AI SDK, asked as make_vercel_ai.py says: BASE_URL SCENARIO TASKS. Prints each tool call's result.
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { NodeSDK, tracing } from '@opentelemetry/sdk-node';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { MockLanguageModelV3 } from 'ai/test';

const [baseUrl, scenario, tasks] = process.argv.slice(2);
const sdk = new NodeSDK({ spanProcessors: [new tracing.BatchSpanProcessor(new OTLPTraceExporter(), { scheduledDelayMillis: 100 })], autoDetectResources: true });
sdk.start();

// A model as the SDK wants one, over the scripted server: the providers' packages are not needed for that.
async function ask(prompt) {
  const messages = prompt.flatMap((message) =>
    message.role === 'tool' ? message.content.map((part) => ({ role: 'tool', tool_call_id: part.toolCallId, content: 'x' })) : [{ role: message.role, content: 'x' }]);
  const response = await fetch(`${baseUrl}/chat/completions`, { method: 'POST', body: JSON.stringify({ messages }) });
  if (!response.ok) throw new Error(`${response.status} the server is down`);
  const { id, model, choices, usage } = await response.json();
  const { message, finish_reason } = choices[0];
  const content = message.tool_calls
    ? message.tool_calls.map((call) => ({ type: 'tool-call', toolCallId: call.id, toolName: call.function.name, input: call.function.arguments }))
    : [{ type: 'text', text: message.content }];
  const cached = usage.prompt_tokens_details.cached_tokens;
  return {
    content,
    finishReason: { unified: finish_reason === 'tool_calls' ? 'tool-calls' : 'stop', raw: finish_reason },
    usage: {
      inputTokens: { total: usage.prompt_tokens, noCache: usage.prompt_tokens - cached, cacheRead: cached, cacheWrite: 0 },
      outputTokens: { total: usage.completion_tokens, text: usage.completion_tokens, reasoning: 0 },
    },
    response: { id, modelId: model, timestamp: new Date() },
    warnings: [],
  };
}

const model = new MockLanguageModelV3({
  provider: 'openai.chat',
  modelId: 'gpt-4o-mini',
  doGenerate: ({ prompt }) => ask(prompt),
  doStream: async ({ prompt }) => {
    const { content, finishReason, usage, response } = await ask(prompt);
    const parts = [{ type: 'stream-start', warnings: [] }, { type: 'response-metadata', ...response }];
    for (const part of content) {
      parts.push(...(part.type === 'text' ? [{ type: 'text-start', id: '1' }, { type: 'text-delta', id: '1', delta: part.text }, { type: 'text-end', id: '1' }] : [part]));
    }
    parts.push({ type: 'finish', finishReason, usage });
    return { stream: new ReadableStream({ start(out) { parts.forEach((part) => out.enqueue(part)); out.close(); } }) };
  },
});

let failed = scenario !== 'tool_error';
const named = (name, result) => tool({
  inputSchema: jsonSchema({ type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }),
  execute: async () => {
    if (!failed) {
      failed = true;
      console.log(`${name} error`);
      throw new Error('the weather service answered with garbage');
    }
    console.log(`${name} ok`);
    return result;
  },
});
const tools = { get_weather: named('get_weather', 'sunny'), get_population: named('get_population', '2.1 million') };
const asked = {
  model, tools, prompt: 'What is the weather and the population of Paris?', stopWhen: stepCountIs(8), maxRetries: 0,
  experimental_telemetry: { isEnabled: true, functionId: 'weather_agent' },
};
for (let task = 0; task < Number(tasks); task += 1) {
  try {
    if (scenario === 'streaming') await streamText({ ...asked, onError() {} }).consumeStream();
    else await generateText(asked);
  } catch { /* what the caller sees is not what is recorded */ }
}
await new Promise((resolve) => { setTimeout(resolve, 200); }); // the outer span of a stream ends a little later
await sdk.shutdown();
