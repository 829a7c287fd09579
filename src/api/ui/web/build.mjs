// Builds the console into ../dist, or into the folder of the first argument. The same sources give the
// same bytes: names hold a hash of what is in them, and nothing depends on when or where it is built.
import { build } from 'esbuild'
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const out = process.argv[2] ?? join(here, '../dist')

await rm(out, { recursive: true, force: true })
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: ['src/main.tsx'],
  outdir: out,
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  minify: true,
  legalComments: 'none',
  metafile: true,
})
const [script, made] = Object.entries(metafile.outputs).find(([, made]) => made.entryPoint === 'src/main.tsx')
const page = await readFile(join(here, 'index.html'), 'utf8')
await writeFile(
  join(out, 'index.html'),
  page.replace('SCRIPT', basename(script)).replace('STYLE', basename(made.cssBundle)),
)
await copyFile(join(here, 'icon.svg'), join(out, 'icon.svg'))
