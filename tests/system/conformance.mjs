// node conformance.mjs SUITE serve PORT: the origin of the open conformance suite for HTTP caches (its checkout: SUITE).
// node conformance.mjs SUITE run URL: its tests against a cache in front of that; what came of each, as JSON.
import { existsSync } from 'node:fs'
import http from 'node:http'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, what, where] = process.argv.slice(2)
const part = name => import(pathToFileURL(resolve(suite, name)).href)

async function serve () {
  const kinds = {}
  for (const kind of ['config', 'state', 'test']) kinds[kind] = (await part(`server/handle-${kind}.mjs`)).default
  http.createServer((request, response) => {
    const [kind, ...segments] = new URL(request.url, 'http://origin/').pathname.split('/').slice(1)
    if (kind in kinds) return kinds[kind](segments, request, response)
    response.statusCode = 404
    response.end()
  }).listen(+where, '127.0.0.1')
}

async function run () {
  const { runTests, getResults } = await part('client/runner.mjs')
  const suites = (await part(existsSync(resolve(suite, 'tests/all.mjs')) ? 'tests/all.mjs' : 'tests/index.mjs')).default
  await runTests(suites, fetch, false, where, 50)
  const results = getResults()
  const tests = suites.flatMap(each => each.tests).filter(test => test.id in results)
  const needs = Object.fromEntries(tests.map(test => [test.id, test.depends_on ?? []]))
  const passed = id => results[id] === true && (needs[id] ?? []).every(passed)
  const told = tests.map(({ id, kind }) => ({ id, kind: kind ?? 'required', passed: passed(id), why: results[id] }))
  process.stdout.write(JSON.stringify(told) + '\n', () => process.exit(0))
}

console.log = () => {}
await { serve, run }[what]()
